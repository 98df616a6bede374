//! The template that makes the URLs of new packages (PSD-009 §6.4.3). Pure.

use peipkg_format::repository_layout as layout;

/// A URL with placeholders.
#[derive(Debug, Clone)]
pub struct Template(String);

/// The names allowed between braces.
const PLACEHOLDERS: [&str; 4] = ["name", "version", "arch", "filename"];

/// Why a text is no template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace has no partner, or the name between two braces is unknown.
    #[error("{0:?} is not a placeholder; known are {{name}}, {{version}}, {{arch}} and {{filename}}")]
    Placeholder(String),
    /// A character that no URL may have.
    #[error("a URL has no spaces, quotes or control characters")]
    Character,
    /// No placeholder: all packages would have the same URL.
    #[error("a template needs a placeholder such as {{filename}}, or all packages would have one URL")]
    Constant,
}

impl Default for Template {
    fn default() -> Self {
        Self(format!("/{}", layout::package("{name}", "{version}", "{filename}")))
    }
}

impl Template {
    /// Reads a template, and checks its characters and placeholders.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '"' | '\\' | '<' | '>')) {
            return Err(TemplateError::Character);
        }
        let mut rest = text;
        let mut count = 0;
        while let Some(start) = rest.find(['{', '}']) {
            let tail = &rest[start..];
            let name = tail.strip_prefix('{').and_then(|tail| tail.split_once('}'));
            let Some((_, after)) = name.filter(|(name, _)| PLACEHOLDERS.contains(name)) else {
                let end = tail.find('}').map_or(tail.len(), |end| end + 1);
                return Err(TemplateError::Placeholder(tail[..end].to_owned()));
            };
            rest = after;
            count += 1;
        }
        if count == 0 { Err(TemplateError::Constant) } else { Ok(Self(text.to_owned())) }
    }

    /// Returns the URL of one package.
    pub fn expand(&self, name: &str, version: &str, architecture: &str, file_name: &str) -> String {
        // No value contains a brace (PSD-009 §2), so no replacement makes a new placeholder.
        self.0
            .replace("{name}", name)
            .replace("{version}", version)
            .replace("{arch}", architecture)
            .replace("{filename}", file_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_templates_are_expanded() {
        let expand = |template: Template| template.expand("jq", "1-1", "noarch", "jq_1-1_noarch.peipkg");
        assert_eq!(expand(Template::default()), "/p/jq/1-1/jq_1-1_noarch.peipkg");
        let own = Template::parse("https://x.org/{arch}/{name}-{version}").unwrap();
        assert_eq!(expand(own), "https://x.org/noarch/jq-1-1");
        for bad in ["", "/p", "/{nmae}", "/{name", "/name}", "/{na{me}}", "/{} {name}", "/\"{name}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
