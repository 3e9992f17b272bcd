//! Conditions on a request.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Invalid, Network, invalid::Check, policy::HashKey};

/// The most values in one list of a condition: a whitelist of users.
pub const MAX_VALUES: usize = 100_000;
/// The longest value, in bytes.
pub const MAX_VALUE: usize = 256;
/// How deep conditions may lie in one another.
const MAX_DEPTH: usize = 8;
/// The longest regular expression, in bytes.
const MAX_REGEX: usize = 1024;

/// A condition on a request: everything that is given has to hold; the empty one always does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct When {
    /// All of these hold.
    #[cfg_attr(feature = "openapi", schema(no_recursion))]
    pub all: Vec<When>,
    /// One of these holds; an empty list asks for nothing.
    #[cfg_attr(feature = "openapi", schema(no_recursion))]
    pub any: Vec<When>,
    /// This does not hold.
    #[cfg_attr(feature = "openapi", schema(no_recursion))]
    pub not: Option<Box<When>>,
    /// What the tests below look at: `header:NAME`, `cookie:NAME`, `query:NAME`, `client` or `path`.
    /// A request that lacks it fails every one of them.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, pattern = "^(client|path|(header|cookie|query|jwt):.+)$"))]
    pub key: Option<HashKey>,
    /// It is one of these, byte by byte: a whitelist of up to 100,000.
    #[cfg_attr(feature = "openapi", schema(max_items = 100_000))]
    pub is: Vec<String>,
    /// It begins with one of these.
    pub starts_with: Vec<String>,
    /// It ends with one of these: `["7"]` takes the users whose number ends in 7.
    pub ends_with: Vec<String>,
    /// It matches this regular expression (anywhere in it; without look-around, so that its time is
    /// bounded).
    pub matches: Option<String>,
    /// It is there (true), or is not (false).
    pub present: Option<bool>,
    /// Together with `below`: its decimal digits at the end, modulo this, are below that:
    /// `user_id % 100 < 5`.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub modulo: Option<u32>,
    /// See `modulo`.
    pub below: Option<u32>,
    /// This share of its values, chosen by a stable hash: the same value is always in or out, and
    /// raising the share only adds values. Without `key`: this share of requests, drawn by lot.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>, minimum = 0, maximum = 100))]
    pub percent: Option<Percent>,
    /// Makes the hash of `percent` another one, so that two experiments do not choose alike.
    pub salt: String,
    /// The client's address is in one of these.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub clients: Vec<Network>,
    /// The method is one of these.
    pub methods: Vec<String>,
}

/// What the conditions of a plugin cost together: they are asked for each request, and kept in
/// memory by each router.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    conditions: usize,
    values: usize,
    regexes: usize,
}

impl Cost {
    /// The most conditions, values and regular expressions of one plugin.
    pub(crate) const MOST: Self = Self {
        conditions: 20_000,
        values: 500_000,
        regexes: 100,
    };

    pub(crate) fn add(&mut self, when: &When) {
        self.conditions += 1;
        self.values += when.is.len() + when.starts_with.len() + when.ends_with.len();
        self.regexes += usize::from(when.matches.is_some());
        let within = when.all.iter().chain(&when.any).chain(when.not.as_deref());
        within.for_each(|when| self.add(when));
    }

    /// Values that stand elsewhere than in conditions.
    pub(crate) fn add_values(&mut self, count: usize) {
        self.values += count;
    }

    pub(crate) fn check(self) -> Result<(), Invalid> {
        let mut check = Check::default();
        for (what, has, most) in [
            ("conditions", self.conditions, Self::MOST.conditions),
            ("values", self.values, Self::MOST.values),
            ("regular expressions", self.regexes, Self::MOST.regexes),
        ] {
            check.ensure(
                has <= most,
                "",
                format!("{has} {what}; a plugin has at most {most} of them in all"),
            );
        }
        check.finish()
    }
}

impl When {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        self.check_at(0)
    }

    fn check_at(&self, depth: usize) -> Result<(), Invalid> {
        let mut check = Check::default();
        if depth >= MAX_DEPTH {
            return Err(Invalid::field(
                "",
                format!("conditions lie at most {MAX_DEPTH} deep in one another"),
            ));
        }
        for (name, list) in [("all", &self.all), ("any", &self.any)] {
            check.ensure(list.len() <= 1000, name, "at most 1000 conditions");
            for (i, when) in list.iter().enumerate() {
                check.merge(&format!("{name}[{i}]"), when.check_at(depth + 1));
            }
        }
        if let Some(not) = &self.not {
            check.merge("not", not.check_at(depth + 1));
        }
        for (name, list) in [
            ("is", &self.is),
            ("starts_with", &self.starts_with),
            ("ends_with", &self.ends_with),
        ] {
            let most = if name == "is" { MAX_VALUES } else { 1000 };
            check.ensure(list.len() <= most, name, format!("at most {most} values"));
            let sane = |value: &String| (1..=MAX_VALUE).contains(&value.len());
            if let Some(i) = list.iter().position(|value| !sane(value)) {
                let field = format!("{name}[{i}]");
                check.ensure(false, &field, format!("1 to {MAX_VALUE} bytes"));
            }
        }
        let tests = !self.is.is_empty()
            || !self.starts_with.is_empty()
            || !self.ends_with.is_empty()
            || self.matches.is_some()
            || self.present.is_some()
            || self.modulo.is_some();
        check.ensure(
            !tests || self.key.is_some(),
            "key",
            "say what is looked at: header:NAME, cookie:NAME, query:NAME, client or path",
        );
        check.ensure(
            self.key.is_none() || tests || self.percent.is_some(),
            "key",
            "say what has to hold of it: is, starts_with, ends_with, matches, present, modulo with \
             below, or percent",
        );
        check.ensure(
            self.modulo.is_some() == self.below.is_some(),
            if self.modulo.is_some() {
                "below"
            } else {
                "modulo"
            },
            "`modulo` and `below` go together",
        );
        if let (Some(modulo), Some(below)) = (self.modulo, self.below) {
            check.ensure(modulo > 0, "modulo", "at least 1");
            check.ensure(below <= modulo, "below", "at most `modulo`");
        }
        check.ensure(
            self.salt.is_empty() || self.percent.is_some(),
            "salt",
            "only `percent` uses it",
        );
        check.ensure(self.salt.len() <= MAX_VALUE, "salt", "at most 256 bytes");
        if let Some(pattern) = &self.matches {
            check.merge("matches", regex(pattern).map(drop));
        }
        check.ensure(self.clients.len() <= 10_000, "clients", "at most 10,000");
        check.merge("methods", methods(&self.methods));
        check.finish()
    }
}

/// Reads a regular expression whose time and memory are bounded.
pub fn regex(pattern: &str) -> Result<regex::bytes::Regex, Invalid> {
    let bad = |why: String| Invalid::field("", why);
    if pattern.is_empty() || pattern.len() > MAX_REGEX {
        return Err(bad(format!(
            "a regular expression has 1 to {MAX_REGEX} bytes"
        )));
    }
    regex::bytes::RegexBuilder::new(pattern)
        .size_limit(256 << 10)
        .dfa_size_limit(1 << 20)
        .build()
        .map_err(|error| bad(format!("no regular expression that can be used: {error}")))
}

/// Checks a list of methods.
pub(crate) fn methods(methods: &[String]) -> Result<(), Invalid> {
    let token = |name: &String| {
        (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'-')
    };
    let mut check = Check::default();
    for (i, name) in methods.iter().enumerate() {
        let field = format!("[{i}]");
        check.ensure(token(name), &field, "a method in capitals, such as GET");
    }
    check.ensure(methods.len() <= 64, "", "at most 64 methods");
    check.finish()
}

/// A share in percent, in steps of 0.01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Percent(u16);

impl Percent {
    /// All of it.
    pub const ALL: Self = Self(10_000);

    /// In hundredths of a percent: 0 to 10,000.
    pub const fn hundredths(self) -> u16 {
        self.0
    }

    /// From hundredths of a percent; none above 10,000.
    pub const fn from_hundredths(hundredths: u16) -> Option<Self> {
        if hundredths <= 10_000 {
            Some(Self(hundredths))
        } else {
            None
        }
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(100) {
            serializer.serialize_u16(self.0 / 100)
        } else {
            serializer.serialize_f64(f64::from(self.0) / 100.0)
        }
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        let hundredths = (value * 100.0).round();
        if !(0.0..=10_000.0).contains(&hundredths) || (value * 100.0 - hundredths).abs() > 1e-6 {
            return Err(serde::de::Error::custom(format!(
                "{value} is no share: a number from 0 to 100, in steps of 0.01"
            )));
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 10,000, as was just checked"
        )]
        let hundredths = hundredths as u16;
        Ok(Self(hundredths))
    }
}
