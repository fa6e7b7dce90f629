//! The comparison of whole files.

mod damaged;
mod pairs;
mod patches;
mod proofs;
mod transforms;
mod twins;
