//! No circles of imports among the modules of a crate.
//!
//! A module and its own descendants may name each other; everything else has one direction. The check works on siblings: a
//! path from `a::x` to `b::y` counts as an edge from `a` to `b`, so folders have one direction as well as files.
//! Paths are read from the text: those that begin with `crate`, `self` or `super`, in `use` statements and in code. Code
//! under `#[cfg(test)]` is left out, and so are modules with a `#[path]`.

use crate::tidy::tokens::{is_name, tokens};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

/// Crates that have circles for now, and why.
const EXEMPT: [(&str, &str); 1] =
    [("outpost-runtime", "session/decoder, import and tokenizer are being taken apart")];

/// A module: its path from the root of the crate.
type Module = Vec<String>;

/// Lists the circles, given what `cargo metadata` prints.
pub(super) fn check(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("`cargo metadata` lists no packages")?;
    let mut breaches = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        if EXEMPT.iter().any(|(exempt, _)| *exempt == name) {
            continue;
        }
        for target in package["targets"].as_array().into_iter().flatten() {
            let root = target["src_path"].as_str().context("a target has no `src_path`")?;
            let imports = Imports::read(Path::new(root))?;
            let target = target["name"].as_str().unwrap_or_default();
            breaches.extend(imports.circles().into_iter().map(|circle| {
                format!("{name}: the modules of `{target}` import each other in a circle: {circle}")
            }));
        }
    }
    Ok(breaches)
}

/// The modules of a crate, and what they name.
#[derive(Debug, Default)]
struct Imports {
    modules: BTreeSet<Module>,
    /// Which module names which path, not yet resolved to a module.
    paths: Vec<(Module, Vec<String>)>,
}

impl Imports {
    /// Reads a crate from its root file.
    fn read(root: &Path) -> Result<Self> {
        let mut imports = Self::default();
        let folder = root.parent().unwrap_or(Path::new(""));
        imports.read_file(root, folder, &Vec::new())?;
        Ok(imports)
    }

    /// Reads a module's file; `folder` holds the files of its children.
    fn read_file(&mut self, file: &Path, folder: &Path, module: &Module) -> Result<()> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        for child in self.read_text(&text, module) {
            let below =
                child[module.len()..].iter().fold(folder.to_owned(), |path, name| path.join(name));
            let flat = below.with_extension("rs");
            let nested = below.join("mod.rs");
            let file: PathBuf = if flat.exists() { flat } else { nested };
            self.read_file(&file, &below, &child)?;
        }
        Ok(())
    }

    /// Takes the text of a module; gives the children that have files of their own.
    fn read_text(&mut self, text: &str, module: &Module) -> Vec<Module> {
        self.modules.insert(module.clone());
        let tokens = tokens(text);
        let mut scan = Scan { tokens: &tokens, at: 0, imports: self, files: Vec::new() };
        scan.items(module);
        scan.files
    }

    /// The edges between siblings, each with a module that makes it.
    fn edges(&self) -> BTreeMap<(Module, Module), Module> {
        let mut edges = BTreeMap::new();
        for (from, path) in &self.paths {
            let is_module = |length: &usize| self.modules.contains(&path[..*length]);
            let Some(length) = (0..=path.len()).rev().find(is_module) else { continue };
            let to = &path[..length];
            let common = from.iter().zip(to).take_while(|(left, right)| left == right).count();
            if common < from.len() && common < to.len() {
                let siblings = (from[..=common].to_vec(), to[..=common].to_vec());
                edges.entry(siblings).or_insert_with(|| from.clone());
            }
        }
        edges
    }

    /// One circle for each set of modules that are in circles together.
    fn circles(&self) -> Vec<String> {
        let edges = self.edges();
        let mut told = BTreeSet::new();
        let mut circles = Vec::new();
        for start in edges.keys().map(|(from, _)| from) {
            if told.contains(start) {
                continue;
            }
            let Some(circle) = shortest_circle(start, &edges) else { continue };
            let steps: Vec<String> = circle
                .windows(2)
                .map(|step| {
                    let by = &edges[&(step[0].clone(), step[1].clone())];
                    format!(
                        "{} → {} (in {})",
                        step[0].join("::"),
                        step[1].join("::"),
                        by.join("::")
                    )
                })
                .collect();
            circles.push(steps.join(", "));
            told.extend(circle);
        }
        circles
    }
}

/// The shortest way from a module back to itself, both ends included.
fn shortest_circle(
    start: &Module,
    edges: &BTreeMap<(Module, Module), Module>,
) -> Option<Vec<Module>> {
    let mut before: BTreeMap<&Module, &Module> = BTreeMap::new();
    let mut waiting = VecDeque::from([start]);
    while let Some(at) = waiting.pop_front() {
        for (_, to) in edges.keys().filter(|(from, _)| from == at) {
            if to == start {
                let mut circle = vec![start.clone(), at.clone()];
                let mut step = at;
                while let Some(previous) = before.get(step) {
                    circle.push((*previous).clone());
                    step = previous;
                }
                circle.reverse();
                return Some(circle);
            }
            if !before.contains_key(to) {
                before.insert(to, at);
                waiting.push_back(to);
            }
        }
    }
    None
}

/// A walk over the tokens of a file.
struct Scan<'a> {
    tokens: &'a [String],
    at: usize,
    imports: &'a mut Imports,
    files: Vec<Module>,
}

impl<'a> Scan<'a> {
    fn peek(&self, ahead: usize) -> &'a str {
        self.tokens.get(self.at + ahead).map_or("", String::as_str)
    }

    /// Up to the end of the file or of the module whose body this is.
    fn items(&mut self, module: &Module) {
        let mut depth = 0;
        while self.at < self.tokens.len() {
            match (self.peek(0), self.peek(1), self.peek(2)) {
                ("#", "[", _) => {
                    if self.leaves_out() {
                        self.skip_item();
                    }
                }
                ("mod", name, ";") => {
                    self.files.push(child(module, name));
                    self.at += 3;
                }
                ("mod", name, "{") => {
                    let inner = child(module, name);
                    self.at += 3;
                    self.imports.modules.insert(inner.clone());
                    self.items(&inner);
                }
                ("use", ..) => {
                    self.at += 1;
                    self.tree(module, &Vec::new());
                }
                ("crate" | "self" | "super", ":", ":") => self.tree(module, &Vec::new()),
                ("{", ..) => {
                    depth += 1;
                    self.at += 1;
                }
                ("}", ..) => {
                    self.at += 1;
                    if depth == 0 {
                        return;
                    }
                    depth -= 1;
                }
                _ => self.at += 1,
            }
        }
    }

    /// One path, or a tree of paths in braces.
    fn tree(&mut self, module: &Module, prefix: &[String]) {
        let mut path = prefix.to_vec();
        loop {
            match self.peek(0) {
                "{" => {
                    self.at += 1;
                    while !matches!(self.peek(0), "}" | "") {
                        self.tree(module, &path);
                        if self.peek(0) == "as" {
                            self.at += 2;
                        }
                        if self.peek(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                "*" => {
                    self.at += 1;
                    return self.note(module, path);
                }
                name if is_name(name) => {
                    path.push(name.to_owned());
                    self.at += 1;
                }
                // Something else than a path, such as a macro's `$crate`.
                _ => {
                    self.at += 1;
                    return;
                }
            }
            if (self.peek(0), self.peek(1)) == (":", ":") {
                self.at += 2;
                if self.peek(0) == "<" {
                    return self.note(module, path);
                }
            } else {
                return self.note(module, path);
            }
        }
    }

    /// Keeps a path that leads somewhere in this crate.
    fn note(&mut self, module: &Module, path: Vec<String>) {
        let mut base = module.clone();
        let mut rest = path.into_iter().peekable();
        match rest.peek().map(String::as_str) {
            Some("crate") => base.clear(),
            Some("self" | "super") => {}
            _ => return,
        }
        for name in rest {
            match name.as_str() {
                "crate" | "self" => {}
                "super" => drop(base.pop()),
                _ => base.push(name),
            }
        }
        self.imports.paths.push((module.clone(), base));
    }

    /// Takes an attribute; whether what it is on is left out: code for tests, and a file that is borrowed from elsewhere.
    fn leaves_out(&mut self) -> bool {
        let start = self.at;
        self.at += 1;
        self.skip_group("[", "]");
        let attribute = &self.tokens[start..self.at];
        let has = |name: &str| attribute.iter().any(|token| token == name);
        match attribute.get(2).map(String::as_str) {
            Some("cfg") => has("test") && !has("not"),
            Some("path") => true,
            _ => false,
        }
    }

    /// Passes an item, up to its `;` or the end of its body.
    fn skip_item(&mut self) {
        while self.at < self.tokens.len() {
            match self.peek(0) {
                ";" => {
                    self.at += 1;
                    return;
                }
                "{" => return self.skip_group("{", "}"),
                "(" => self.skip_group("(", ")"),
                "[" => self.skip_group("[", "]"),
                _ => self.at += 1,
            }
        }
    }

    /// Passes a group, from its opening to its closing bracket.
    fn skip_group(&mut self, open: &str, close: &str) {
        let mut depth = 0;
        while self.at < self.tokens.len() {
            let token = self.peek(0);
            depth += i32::from(token == open) - i32::from(token == close);
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }
}

fn child(module: &Module, name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate of these modules: path and text.
    fn crate_of(files: &[(&str, &str)]) -> Imports {
        let mut imports = Imports::default();
        for (path, text) in files {
            let module = path.split("::").filter(|name| !name.is_empty());
            imports.read_text(text, &module.map(str::to_owned).collect());
        }
        imports
    }

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        crate_of(files).circles()
    }

    #[test]
    fn one_direction_is_no_circle() {
        let root = "mod a; mod b; mod c;";
        let files = [("", root), ("a", "use crate::b::B;"), ("b", "use crate::c::C;"), ("c", "")];
        assert_eq!(circles(&files), Vec::<String>::new());
    }

    #[test]
    fn a_circle_is_told_once_with_the_modules_that_make_it() {
        let files = [
            ("", "mod a; mod b; mod c;"),
            ("a", "use crate::b::B;"),
            ("b", "use crate::c::{C, D};"),
            ("c", "fn f() -> crate::a::A { todo!() }"),
        ];
        assert_eq!(circles(&files), ["a → b (in a), b → c (in b), c → a (in c)"]);
    }

    #[test]
    fn circles_of_folders_are_found_where_their_files_have_none() {
        let files = [
            ("", "mod a; mod b;"),
            ("a", "mod x; mod y;"),
            ("a::x", "use crate::b::y::Y;"),
            ("a::y", ""),
            ("b", "mod x; mod y;"),
            ("b::x", "use crate::a::y::Y;"),
            ("b::y", ""),
        ];
        assert_eq!(circles(&files), ["a → b (in a::x), b → a (in b::x)"]);
    }

    #[test]
    fn siblings_in_a_folder_are_held_apart_too() {
        let files = [
            ("", "mod a;"),
            ("a", "mod x; mod y;"),
            ("a::x", "use super::y::Y;"),
            ("a::y", "use crate::a::x::X;"),
        ];
        assert_eq!(circles(&files), ["a::x → a::y (in a::x), a::y → a::x (in a::y)"]);
    }

    #[test]
    fn parents_and_children_may_name_each_other() {
        let files = [
            ("", "pub mod a; use crate::a::A;"),
            (
                "a",
                "mod x; pub use self::x::X; pub use x::Z; fn f() { inner::g() } mod inner { use super::f; }",
            ),
            ("a::x", "use crate::a::A; use super::B; use crate::C;"),
        ];
        assert_eq!(circles(&files), Vec::<String>::new());
    }

    #[test]
    fn trees_aliases_and_globs_are_followed() {
        for text in [
            "use crate::{b::{self, B}, c};",
            "use crate::{c, b as other};",
            "use crate::{c as d, b::*};",
            "pub(crate) use super::b::B as C;",
            "use {crate::b::B, std::fmt};",
            "pub use self::super::b;",
            "fn f(x: &crate::b::B<'static>) {}",
            "fn f() { let y = super::b::make::<u8>(); }",
            "const C: char = '\\''; const D: char = '\"'; use crate::b::B;",
        ] {
            let files =
                [("", "mod a; mod b; mod c;"), ("a", text), ("b", "use crate::a::A;"), ("c", "")];
            assert_eq!(circles(&files), ["a → b (in a), b → a (in b)"], "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_an_import_is_none() {
        for text in [
            "// use crate::b::B;",
            "/* a /* nested */ use crate::b::B; */",
            "const TEXT: &str = \"use crate::b::B; \\\" crate::b::B\";",
            "const TEXT: &str = r#\"\" use crate::b::B;\"#;",
            "const TEXT: &[u8] = br\"use crate::b::B;\";",
            "#[cfg(test)] mod tests { use crate::b::B; mod more { use crate::b::B; } }",
            "#[cfg(test)] use crate::b::B;",
            "#[path = \"../elsewhere.rs\"] mod elsewhere;",
            "#[cfg(all(test, unix))] fn f(x: [u8; 3]) -> crate::b::B { B }",
            "pub(crate) fn b() {} pub(super) struct B; use std::b::B;",
            "macro_rules! m { () => { $crate::c::C } }",
        ] {
            let files =
                [("", "mod a; mod b; mod c;"), ("a", text), ("b", "use crate::a::A;"), ("c", "")];
            assert_eq!(circles(&files), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn what_follows_test_code_still_counts() {
        let a = "#[cfg(test)] mod tests; #[cfg(not(test))] use crate::b::B;";
        let files = [("", "mod a; mod b;"), ("a", a), ("b", "use crate::a::A;")];
        assert_eq!(circles(&files).len(), 1);
    }

    #[test]
    fn files_are_found_as_the_compiler_finds_them() {
        let folder = std::env::temp_dir().join(format!("outpost-imports-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("lib.rs", "mod a;\nmod b;\n#[cfg(test)]\nmod tests;\n");
        write("a.rs", "mod x;\n");
        write("a/x.rs", "use crate::b::y::Y;\n");
        write("b/mod.rs", "mod y;\nuse crate::a::A;\n");
        write("b/y.rs", "");
        let circles = Imports::read(&folder.join("lib.rs")).unwrap().circles();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(circles, ["a → b (in a::x), b → a (in b)"]);
    }
}
