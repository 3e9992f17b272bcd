//! The wire engine: HTTP/1.1 on both sides, without header maps and without copies that are not
//! needed.
//!
//! A head is parsed in place ([`lines`], [`request`], [`response`]) into positions within the buffer
//! that it was read to; [`render`] copies it, in runs of whole lines, to the buffer that is written
//! to the other side, where the body's first part joins it: one read and one write a message. What
//! follows of a body is moved by [`body`] in large pieces. [`chunked`] takes chunks apart;
//! [`crate::wire`] is the only place that touches a socket.

pub(crate) mod body;
pub(crate) mod buffer;
pub(crate) mod chunked;
pub(crate) mod forwarded;
pub(crate) mod head;
pub(crate) mod lines;
pub(crate) mod pace;
pub(crate) mod render;
pub(crate) mod request;
pub(crate) mod response;
