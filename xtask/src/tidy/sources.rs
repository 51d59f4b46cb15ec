//! What may stand in a file.

/// Longest Rust file, in lines.
const LONGEST: usize = 600;

/// Folders of one machine, none of which another has. In two parts, so that this file passes its own check.
const FOLDERS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// Servers of package registries, which `cargo` and `pip` know by themselves.
const SERVERS: [&str; 5] = [
    concat!("py", "pi.org"),
    concat!("files.python", "hosted.org"),
    concat!("static.", "crates.io"),
    concat!("index.", "crates.io"),
    concat!("deb.", "debian.org"),
];

/// Lists what should not stand in a text file.
pub(super) fn check(path: &str, text: &str) -> Vec<String> {
    let rust = has_extension(path, "rs");
    let mut breaches = Vec::new();
    if rust && text.lines().count() > LONGEST {
        breaches.push(format!("{path}: longer than {LONGEST} lines"));
    }
    for (index, line) in text.lines().enumerate() {
        let rules = [
            (
                FOLDERS.iter().any(|folder| names_folder(line, folder)),
                "names a folder of one machine",
            ),
            (SERVERS.iter().any(|server| line.contains(server)), "names a registry's server"),
            (
                rust && misplaced_print(path, line),
                "allows printing outside agent/src/cli, xtask and benches",
            ),
        ];
        let broken = rules.into_iter().filter(|(broken, _)| *broken);
        breaches.extend(broken.map(|(_, what)| format!("{path}:{}: {what}", index + 1)));
    }
    breaches
}

/// Whether a line has the folder at the start of a path: `/x/` in `"/x/y"`, not in `topic/x/y`.
fn names_folder(line: &str, folder: &str) -> bool {
    let starts_path = |before: Option<char>| {
        before.is_none_or(|c| !(c.is_alphanumeric() || "._-*<>{}$".contains(c)))
    };
    line.match_indices(folder).any(|(at, _)| starts_path(line[..at].chars().next_back()))
}

fn misplaced_print(path: &str, line: &str) -> bool {
    let home = ["agent/src/cli/", "agent/src/main.rs", "xtask/", "runtime/kernels/benches/"]
        .iter()
        .any(|home| path.starts_with(home));
    !home && (line.contains("clippy::print_stdout") || line.contains("clippy::print_stderr"))
}

fn has_extension(path: &str, extension: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, found)| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files() {
        assert!(check("a/b.rs", &"\n".repeat(LONGEST)).is_empty());
        assert_eq!(check("a/b.rs", &"\n".repeat(LONGEST + 1)).len(), 1);
        assert!(check("a/b.md", &"\n".repeat(LONGEST + 1)).is_empty());
    }

    #[test]
    fn machine_folders() {
        let folder = FOLDERS[0];
        assert_eq!(
            check("a.md", &format!("see {folder}x")),
            ["a.md:1: names a folder of one machine"]
        );
        assert_eq!(
            check("a.md", &format!("\n\"{folder}x\"")),
            ["a.md:2: names a folder of one machine"]
        );
        assert!(check("a.md", &format!("topic{folder}x, ./a{folder}")).is_empty());
    }

    #[test]
    fn registry_servers() {
        assert_eq!(check("a.toml", &format!("https://{}/simple", SERVERS[0])).len(), 1);
    }

    #[test]
    fn printing_has_one_home() {
        let line = "#![expect(clippy::print_stdout, reason = \"x\")]";
        assert!(check("agent/src/cli/ask.rs", line).is_empty());
        assert_eq!(check("runtime/src/engine.rs", line).len(), 1);
    }
}
