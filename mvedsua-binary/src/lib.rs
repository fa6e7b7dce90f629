#![forbid(unsafe_code)]

pub mod align;
pub mod binding;
pub mod classes;
pub mod constants;
pub mod functions;
pub mod image;
pub mod layout;
pub mod matching;
pub mod normalise;
pub mod numbers;
pub mod side;
