//! Where a field of a TOML file stands.

use toml::de::{DeTable, DeValue};

/// A TOML text that can be asked for the line of a path such as `service[0].instance[2].weight`.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    text: &'a str,
    table: Option<DeTable<'a>>,
}

impl<'a> Lines<'a> {
    /// Of a text; one that is no TOML has no lines.
    pub(crate) fn of(text: &'a str) -> Self {
        let table = DeTable::parse(text).ok().map(toml::Spanned::into_inner);
        Self { text, table }
    }

    /// The line, from 1, of a path; of the nearest table around it when it is not there itself.
    pub(crate) fn line(&self, path: &str) -> Option<usize> {
        let mut at = self.table.as_ref().map(Place::Table)?;
        let mut found = None;
        for step in path.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
            let Some((start, next)) = at.step(step) else {
                break;
            };
            found = Some(start);
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        found.map(|start| line_at(self.text, start))
    }
}

enum Place<'a, 'b> {
    Table(&'b DeTable<'a>),
    Array(&'b toml::de::DeArray<'a>),
}

impl<'a, 'b> Place<'a, 'b> {
    fn step(&self, step: &str) -> Option<(usize, Option<Place<'a, 'b>>)> {
        let (start, value) = match self {
            Self::Table(table) => {
                let (key, value) = table.iter().find(|(key, _)| key.get_ref() == step)?;
                (key.span().start, value)
            }
            Self::Array(items) => {
                let value = items.get(step.parse::<usize>().ok()?)?;
                (value.span().start, value)
            }
        };
        let next = match value.get_ref() {
            DeValue::Table(table) => Some(Place::Table(table)),
            DeValue::Array(items) => Some(Place::Array(items)),
            _ => None,
        };
        Some((start, next))
    }
}

/// The line, from 1, of a byte.
pub(crate) fn line_at(text: &str, byte: usize) -> usize {
    let before = text.char_indices().take_while(|(at, _)| *at < byte);
    before.filter(|(_, c)| *c == '\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_fields() {
        let text = "# head\n[router]\nlisten = 1\n\n[router.limits]\nhead = 2\n\n[[service]]\n\
                    name = \"a\"\n[[service.instance]]\nweight = 1\n[[service.instance]]\nweight = 2\n";
        let lines = Lines::of(text);
        for (path, line) in [
            ("router", 2),
            ("router.listen", 3),
            ("router.limits.head", 6),
            ("service[0].name", 9),
            ("service[0].instance[1].weight", 13),
            ("router.limits.missing", 5),
        ] {
            assert_eq!(lines.line(path), Some(line), "{path}");
        }
        assert_eq!(lines.line(""), None);
        assert_eq!(Lines::of("= broken").line("router"), None);
    }
}
