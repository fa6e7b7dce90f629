//! The comparison of whole files.

mod damaged;
mod pairs;
mod patches;
mod transforms;
mod twins;
