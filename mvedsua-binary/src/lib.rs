#![forbid(unsafe_code)]

pub mod align;
pub mod binding;
pub mod constants;
pub mod functions;
pub mod image;
pub mod matching;
pub mod normalise;
pub mod side;
