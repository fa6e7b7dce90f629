//! Tests of the SDK on programs in C, compiled as the guide says.

mod guide;
mod idle;
mod kinds;
mod support;
