//! Compares two files: `cargo run --release -p mvedsua-binary --example compare -- OLD NEW`.

use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(old), Some(new)) = (args.next(), args.next()) else { return Err("usage: compare OLD NEW".into()) };
    let (old, new) = (std::fs::read(old)?, std::fs::read(new)?);
    let start = Instant::now();
    let comparison = mvedsua_binary::compare(&old, &new)?;
    let took = start.elapsed();
    print!("{}", mvedsua_binary::Report::of(&comparison).text());
    println!("\ncompared in {} ms", took.as_millis());
    Ok(())
}
