//! A case that nobody runs proves nothing.

#[test]
fn every_case_is_in_the_manifest() {
    let harness = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(harness.join("Cargo.toml")).unwrap();
    let cases = std::fs::read_dir(harness.join("../cases")).unwrap();
    let mut found = 0;
    for case in cases {
        let name = case.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".rs") {
            found += 1;
            assert!(manifest.contains(&format!("\"../cases/{name}\"")), "{name} is no [[test]] of the harness");
        }
    }
    assert!(found > 1);
}
