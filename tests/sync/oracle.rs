//! The oracle is shared: see `tests::oracle`.

pub use tests::oracle::agrees;
