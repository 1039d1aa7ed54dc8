//! Decisions as pure state: facts and time in, verdicts out.
