//! Where new packages are said to be: the template of their URLs (PSD-009 §6.4.3). Pure.

/// A URL with placeholders.
#[derive(Debug, Clone)]
pub struct Template(String);

/// The conventional place below the repository.
const DEFAULT: &str = "/p/{name}/{version}/{filename}";
/// What may stand between braces.
const PLACEHOLDERS: [&str; 4] = ["name", "version", "arch", "filename"];

/// The text is no template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace has no partner, or what is between two of them is unknown.
    #[error("{0:?} is not a placeholder; known are {{name}}, {{version}}, {{arch}} and {{filename}}")]
    Placeholder(String),
    /// A URL has no such character.
    #[error("a URL has no spaces, quotes or control characters")]
    Character,
    /// All packages would have the same URL.
    #[error("a template needs a placeholder, or all packages would be at one place")]
    Constant,
}

impl Default for Template {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl Template {
    /// Reads a template.
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

    /// The URL of one package.
    pub fn expand(&self, name: &str, version: &str, architecture: &str, file_name: &str) -> String {
        // No value has a brace in it (PSD-009 §2), so one replacement cannot make work for the next.
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
