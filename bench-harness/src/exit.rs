//! How a command ends, if it does not end with an error.

/// What `main` makes an exit code of. Errors have codes of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Well,
    /// A threshold was broken, or mail was lost, duplicated, altered or invented, or came without an id.
    Broken,
    /// A signal ended the run early; it was reported all the same.
    Interrupted,
}
