//! Reads the imports of source files: every path in the code that begins with `crate`, `self`,
//! `super` or a child module, resolved to the file that it leads to. Code under `#[cfg(test)]`
//! is left out. A `mod` declaration is no import.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ItemFn, ItemImpl, ItemMod, ItemUse, Macro, Meta, UseTree};

/// Which files each file imports, by their paths below `src/`.
pub(crate) type Imports = BTreeMap<String, BTreeSet<String>>;

/// A module: the names that lead to it from the crate's root.
type Module = Vec<String>;

/// The imports of the files of one crate, given as path and text.
pub(crate) fn of(sources: &BTreeMap<String, String>) -> Imports {
    let files: BTreeMap<Module, &String> = sources.keys().map(|file| (module_of(file), file)).collect();
    let mut imports = Imports::new();
    for (module, file) in &files {
        let code = syn::parse_file(&sources[*file]).unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut paths = Paths::default();
        paths.visit_file(&code);
        let targets = paths.0.iter().filter_map(|path| target(path, module, &files));
        let others = targets.filter(|target| target != *file);
        imports.insert((*file).clone(), others.collect());
    }
    imports
}

/// The groups of files that import each other, each sorted.
pub(crate) fn cycles(imports: &Imports) -> Vec<Vec<&str>> {
    let mut groups: Vec<Vec<&str>> = Vec::new();
    for start in imports.keys() {
        if groups.iter().any(|group| group.contains(&&**start)) {
            continue;
        }
        let reached = reachable(start, imports);
        let returns = |file: &&str| reachable(file, imports).contains(&**start);
        let group: Vec<&str> = reached.into_iter().filter(returns).collect();
        if !group.is_empty() {
            groups.push(group);
        }
    }
    groups
}

/// The files that `start` leads to by one import or more.
fn reachable<'a>(start: &str, imports: &'a Imports) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut pending = vec![start];
    while let Some(file) = pending.pop() {
        for next in imports.get(file).into_iter().flatten() {
            if reached.insert(&**next) {
                pending.push(next);
            }
        }
    }
    reached
}

/// The module that a file holds: `farm/mod.rs` holds `farm`, `lib.rs` the root.
fn module_of(file: &str) -> Module {
    let mut names: Module = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if names.last().is_some_and(|last| last == "mod") || names == ["lib"] {
        names.pop();
    }
    names
}

/// The file that a path within `module` leads to. An import of the crate's root does
/// not count: the root only declares modules.
fn target(path: &[String], module: &Module, files: &BTreeMap<Module, &String>) -> Option<String> {
    let (first, rest) = path.split_first()?;
    let mut names = match first.as_str() {
        "crate" | "peipkg_manager" => Module::new(),
        "self" => module.clone(),
        "super" => module[..module.len().checked_sub(1)?].to_vec(),
        child => {
            let mut names = module.clone();
            names.push(child.to_owned());
            // Any other first name is a crate's, or of the file itself.
            files.get(&names)?;
            names
        }
    };
    for name in rest {
        if name == "super" {
            names.pop();
        } else {
            names.push(name.clone());
        }
    }
    while !names.is_empty() {
        if let Some(file) = files.get(&names) {
            return Some((*file).clone());
        }
        names.pop();
    }
    None
}

/// Collects the paths in code that is no test.
#[derive(Default)]
struct Paths(Vec<Vec<String>>);

impl Paths {
    fn add_use(&mut self, tree: &UseTree, mut before: Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.add_use(&path.tree, before);
            }
            UseTree::Name(name) => {
                before.push(name.ident.to_string());
                self.0.push(before);
            }
            UseTree::Rename(rename) => {
                before.push(rename.ident.to_string());
                self.0.push(before);
            }
            UseTree::Glob(_) => self.0.push(before),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(tree, before.clone())),
        }
    }

    /// Adds the paths in `tokens`: names with two colons between them.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(name) if colons == 2 && !path.is_empty() => {
                    path.push(name.to_string());
                    colons = 0;
                }
                token => {
                    self.finish(&mut path);
                    colons = 0;
                    match token {
                        TokenTree::Ident(name) => path.push(name.to_string()),
                        TokenTree::Group(group) => self.add_tokens(group.stream()),
                        _ => {}
                    }
                }
            }
        }
        self.finish(&mut path);
    }

    fn finish(&mut self, path: &mut Vec<String>) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.0.push(path);
        }
    }
}

impl<'a> Visit<'a> for Paths {
    fn visit_item_use(&mut self, item: &'a ItemUse) {
        if !is_test(&item.attrs) {
            self.add_use(&item.tree, Vec::new());
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if names.len() > 1 {
            self.0.push(names);
        }
        visit::visit_path(self, path);
    }

    /// Macros are not parsed by syn, but a path in one is an import like any other.
    fn visit_macro(&mut self, call: &'a Macro) {
        self.add_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    /// A visibility such as `pub(in crate::farm)` imports nothing.
    fn visit_visibility(&mut self, _: &'a syn::Visibility) {}

    fn visit_attribute(&mut self, attribute: &'a Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.add_tokens(list.tokens.clone());
        }
    }

    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'a ItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'a ItemImpl) {
        if !is_test(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }
}

/// Whether `#[cfg(test)]`, or a `cfg` that names `test` among others, is among the attributes.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string().contains("test"),
        _ => false,
    })
}
