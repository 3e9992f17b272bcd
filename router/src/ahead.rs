//! Fetching ahead: with thousands of routes, what belongs to one of them is in no cache when a request comes.
//! The processor is told what will be needed next – the host's place in the index, the entry, the counters –
//! while there is something else to do.

/// Has the cache line that something begins in fetched.
#[inline]
pub(crate) fn fetch<T>(what: &T) {
    line(std::ptr::from_ref(what).cast());
}

/// Has the cache lines that something begins and ends in fetched.
#[inline]
pub(crate) fn fetch_ends<T: ?Sized>(what: &T) {
    let begin = std::ptr::from_ref(what).cast::<u8>();
    line(begin);
    line(begin.wrapping_add(size_of_val(what).saturating_sub(1)));
}

#[inline]
fn line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // A hint: it reads and writes nothing that a program could see, and takes any address, also one
        // that is not mapped (AMD64 Architecture Programmer's Manual, volume 3, PREFETCHlevel).
        #[allow(unsafe_code, reason = "no address does any harm")]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(at.cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
