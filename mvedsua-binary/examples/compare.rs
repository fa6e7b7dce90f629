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
    for e in b.elsewhere.iter().take(30) { 
        let g = m.old[e.function].unwrap().new;
        println!("  {} {e:x?}", old.function_name(e.function));
        for (a, b) in old.bodies.refs(e.function).iter().zip(new.bodies.refs(g)) { if old.functions[e.function].start + u64::from(a.at) == e.at {
            println!("     {:?} {:x} {:x} ext {} {} {:?} {:?}", a.way, a.target, b.target, old.constant_extent(a.target), new.constant_extent(b.target), old.text_at(a.target), new.text_at(b.target)); } }
    }
    let mut last: Option<(u64, u64)> = None;
    for (a, x) in &b.old {
        if let Some((pa, pb)) = last {
            let d = x.new.wrapping_sub(pb) as i64 - (a - pa) as i64;
            if d != 0 && old.image.area_at(*a) == old.image.area_at(pa) { println!("  gap {pa:x}->{pb:x} {a:x}->{:x} by {d} {:?} {:?}", x.new, old.image.area_at(*a), x); }
        }
        last = Some((*a, x.new));
    }
    let fates = mvedsua_binary::classes::classify(&old, &new, &m, &b);
    eprintln!("classified {:?}", t.elapsed());
    let mut counts = std::collections::BTreeMap::new();
    for f in &fates.changed { *counts.entry(f.class).or_insert(0) += 1; }
    println!("classes {counts:?} lines {}", fates.lines);
    use mvedsua_binary::layout::Role;
    for role in [Role::Field, Role::ThreadLocal, Role::Bound, Role::Case, Role::Count, Role::Arithmetic, Role::Mask, Role::Value] {
        let all: Vec<_> = fates.shifts.iter().filter(|(_, s)| s.role == role).collect();
        if all.is_empty() { continue; }
        println!("shifts {role:?} {} supported {:?}", all.len(), mvedsua_binary::classes::by_distance(&fates.shifts, role));
        for (f, s) in all.iter().take(if role == Role::Field { 5 } else { 4 }) { println!("   {} {s:x?}", old.function_name(*f)); }
    }
    println!("numbers {}", fates.numbers.len());
    for n in fates.numbers.iter().take(8) { println!("   {} {n:x?}", old.function_name(n.function)); }
    for f in &fates.changed { if f.class > mvedsua_binary::classes::Class::LineNumbers {
        println!("  {:?} {} {} {:?} {:?}", f.class, f.old.map_or(String::new(), |i| old.function_name(i)), f.new.map_or(String::new(), |i| format!("{:x}", new.functions[i].start)), f.by, f.why); } }
}
