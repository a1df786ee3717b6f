//! The replicated state of sdm: pure tables and one apply function.
