//! The state as a value: what holds whatever is done to it.
