//! Tables that name tests: the README's promises and the list of faults. Every test named there exists.

use std::path::Path;

use wasmflow_tests::binary::repository;

/// The last cell of each row below `head`, beside the whole row.
fn proofs<'p>(page: &'p str, head: &str) -> Vec<(&'p str, &'p str)> {
    let columns = head.matches('|').count() - 1;
    let below = format!("{head}\n{}|\n", "|---".repeat(columns));
    let mut rows = Vec::new();
    for table in page.split(&below).skip(1) {
        for row in table.lines().take_while(|line| line.starts_with('|')) {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
            assert_eq!(cells.len(), columns, "not {columns} cells: {row}");
            rows.push((row, cells[columns - 1].trim()));
        }
    }
    rows
}

/// Checks that what `proof` cites, as `` [file](path): `test`, `test`; … `` seen from `folder`, is there; says how many tests it is. A
/// configuration file stands for itself: the golden suite runs all there are.
fn count_cited(proof: &str, folder: &Path) -> usize {
    let mut tests = 0;
    for cited in proof.split("; ").filter(|part| part.starts_with('[')) {
        let (file, names) = cited.split_once(": ").unwrap_or((cited, ""));
        let path = file.split_once("](").and_then(|(_, path)| path.strip_suffix(')'));
        let path = folder.join(path.unwrap_or_else(|| panic!("no link to a file: {cited}")));
        let source = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let source = String::from_utf8_lossy(&source);
        if names.is_empty() {
            assert!(path.with_extension("err").exists(), "no test and no golden case: {cited}");
            tests += 1;
        }
        for name in names.split(", ").map(|name| name.trim_matches([' ', '`'])).filter(|name| !name.is_empty()) {
            assert!(source.contains(&format!("fn {name}(")), "{} has no test `{name}`", path.display());
            tests += 1;
        }
    }
    tests
}

#[test]
fn every_promise_names_tests_and_they_exist() {
    let page = std::fs::read_to_string(repository().join("README.md")).expect("the page is part of the repository");
    let rows = proofs(&page, "| path | promise | proved by |");
    assert!(rows.len() > 10, "{rows:?}");
    for (row, proof) in rows {
        assert!(count_cited(proof, repository()) > 0, "no test in {row}");
    }
}

#[test]
fn every_fault_names_tests_that_exist_or_says_why_it_has_none() {
    let folder = repository().join("tests");
    let page = std::fs::read_to_string(folder.join("FAULTS.md")).expect("the page is part of the repository");
    let rows = proofs(&page, "| # | fault | test, or why there is none |");
    let numbers: Vec<_> = rows.iter().map(|(row, _)| row[1..].split('|').next().unwrap_or_default().trim()).collect();
    assert_eq!(
        numbers,
        (1..=104).map(|number: u32| number.to_string()).collect::<Vec<_>>(),
        "each fault once, in order"
    );
    for (row, proof) in rows {
        let reason = proof.split("; ").find(|part| !part.starts_with('['));
        assert!(count_cited(proof, &folder) > 0 || reason.is_some_and(|why| why.starts_with("none: ")), "{row}");
        assert!(reason.is_none_or(|why| why.starts_with("none: ") || why.starts_with("not ")), "{row}");
    }
}
