//! `docs/tcp.md` says what the stack claims, and names a test for each claim: this holds it to that.

use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust source in and below a folder.
fn sources(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

/// What stands between backticks.
fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn each_claim_names_a_test_and_each_test_that_is_named_exists() {
    let root = repository();
    let mut code = String::new();
    for folder in ["stack/src", "stack/tests", "dataplane/tests"] {
        sources(&root.join(folder), &mut code);
    }
    let exists = |name: &str| match name {
        "simulation" | "hostile" | "basic" => root.join(format!("stack/tests/{name}.rs")).exists(),
        path if path.ends_with(".rs") => root.join(path).exists(),
        "take()" => true,
        name => {
            let function = name.rsplit("::").next().unwrap_or(name);
            code.contains(&format!("fn {function}()"))
        }
    };
    let page = fs::read_to_string(root.join("docs/tcp.md")).unwrap();
    let (mut wrong, mut claims) = (Vec::new(), 0);
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let (Some(what), Some(tests)) = (cells.first(), cells.last()) else { continue };
        if matches!(*what, "Requirement" | "Claim") {
            continue;
        }
        claims += 1;
        let met = cells.len() < 3 || !cells[1].starts_with("not met");
        if met && names(tests).next().is_none() {
            wrong.push(format!("no test: {what}"));
        }
        wrong.extend(
            names(tests).filter(|name| !exists(name)).map(|name| format!("no such test: {name}")),
        );
    }
    assert!(claims > 50, "the tables weren't found");
    assert!(wrong.is_empty(), "docs/tcp.md: {wrong:#?}");
}
