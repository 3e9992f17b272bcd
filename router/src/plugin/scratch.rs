//! Where plugins write.

/// What is to be written about a request. It belongs to the exchange, so that a warm one allocates
/// nothing.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The path that the service sees; empty: as it came.
    pub(crate) path: Vec<u8>,
    /// The `Host` that the service sees; empty: as it came.
    pub(crate) host: Vec<u8>,
    /// Lines put in to the request.
    pub(crate) request: Vec<u8>,
    /// Lines put in to the answer.
    pub(crate) reply: Vec<u8>,
    /// Of those, the lines that go to whichever service is asked: a lane's tag.
    pub(crate) tag: Vec<u8>,
    pub(super) value: Vec<u8>,
}

impl Scratch {
    pub(crate) fn clear(&mut self) {
        for text in self.texts() {
            text.clear();
        }
    }

    /// Forgets everything, and keeps no more than `most` bytes of room for each text.
    pub(crate) fn reset(&mut self, most: usize) {
        self.clear();
        for text in self.texts() {
            text.shrink_to(most);
        }
    }

    fn texts(&mut self) -> [&mut Vec<u8>; 6] {
        [
            &mut self.path,
            &mut self.host,
            &mut self.request,
            &mut self.reply,
            &mut self.tag,
            &mut self.value,
        ]
    }
}
