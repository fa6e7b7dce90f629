//! Compares two files.
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let old = std::fs::read(&args[1]).unwrap();
    let new = std::fs::read(&args[2]).unwrap();
    let t = std::time::Instant::now();
    let old = mvedsua_binary::side::Side::read(&old).unwrap();
    let new = mvedsua_binary::side::Side::read(&new).unwrap();
    eprintln!("read {:?}", t.elapsed());
    let m = mvedsua_binary::matching::run(&old, &new);
    eprintln!("matched {:?}", t.elapsed());
    let matched = m.old.iter().flatten().count();
    let equal = m.old.iter().flatten().filter(|m| m.equal).count();
    println!("functions {} {} matched {matched} equal {equal} new {}", old.functions.len(), new.functions.len(), m.new.iter().filter(|n| n.is_none()).count());
    let b = mvedsua_binary::binding::bind(&old, &new, &m);
    eprintln!("bound {:?}", t.elapsed());
    println!("objects {} {} bound {} contradictions {} elsewhere {}", old.objects.len(), new.objects.len(), b.old.len(), b.contradictions.len(), b.elsewhere.len());
    for c in b.contradictions.iter().take(10) { println!("  {c:x?}"); }
    for e in b.elsewhere.iter().take(30) { println!("  {} {e:x?}", old.function_name(e.function)); }
    let mut last: Option<(u64, u64)> = None;
    for (a, x) in &b.old {
        if let Some((pa, pb)) = last {
            let d = x.new.wrapping_sub(pb) as i64 - (a - pa) as i64;
            if d != 0 && old.image.area_at(*a) == old.image.area_at(pa) { println!("  gap {pa:x}->{pb:x} {a:x}->{:x} by {d} {:?} {:?}", x.new, old.image.area_at(*a), x); }
        }
        last = Some((*a, x.new));
    }
    for (i, f) in m.old.iter().enumerate() {
        match f { None => println!("  gone {}", old.function_name(i)), Some(f) if !f.equal => println!("  changed {} -> {:x} {:?}", old.function_name(i), new.functions[f.new].start, f.by), _ => {} }
    }
    for (i, f) in m.new.iter().enumerate() { if f.is_none() { println!("  new {}", new.function_name(i)); } }
}
