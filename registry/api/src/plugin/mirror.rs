//! Copies of requests, sent to somebody whose answers nobody waits for.

use serde::{Deserialize, Serialize};

use super::when::{self, Percent, When};
use crate::{Address, Invalid, Name, Span, invalid::Check};

/// Copies of requests, sent to a group, another service or an address once they have been answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Mirror {
    /// Of which requests; default: all.
    pub when: When,
    /// Requests with these methods. Default: GET, HEAD and OPTIONS. Whoever gets copies of others does
    /// again what they do: name them only where the target's data is its own.
    pub methods: Vec<String>,
    /// Of this share of them, drawn by lot, in steps of 0.01. Default 100.
    #[cfg_attr(feature = "openapi", schema(value_type = f64))]
    pub percent: Percent,
    /// How many copies of each, 1 to 100. Default 1.
    pub times: u8,
    /// To this service.
    pub service: Option<Name>,
    /// To this group of `service`, or of the route's own service.
    pub group: Option<Name>,
    /// To this `host:port`, which the router's own configuration must allow.
    pub address: Option<Address>,
    /// The largest body of a request that is copied, in bytes. Default 64 KiB.
    pub body: u32,
    /// How long a copy may take as a whole. Default 5s.
    pub timeout: Span,
    /// Whether `Cookie` and `Authorization` go along. Default false.
    pub credentials: bool,
    /// Whether answers are compared with the original's, by status, length and time, rather than
    /// thrown away. Default false.
    pub compare: bool,
}

/// The most copies of a request.
const MOST_TIMES: u8 = 100;

impl Default for Mirror {
    fn default() -> Self {
        Self {
            when: When::default(),
            methods: ["GET", "HEAD", "OPTIONS"].map(str::to_owned).to_vec(),
            percent: Percent::ALL,
            times: 1,
            service: None,
            group: None,
            address: None,
            body: 64 << 10,
            timeout: Span::secs(5),
            credentials: false,
            compare: false,
        }
    }
}

impl Mirror {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.merge("when", self.when.check());
        check.merge("methods", when::methods(&self.methods));
        check.ensure(!self.methods.is_empty(), "methods", "at least one method");
        check.ensure(
            self.percent.hundredths() > 0,
            "percent",
            "copies nothing: at least 0.01; `enabled = false` switches it off",
        );
        check.ensure(
            (1..=MOST_TIMES).contains(&self.times),
            "times",
            format!("between 1 and {MOST_TIMES}"),
        );
        let named = self.service.is_some() || self.group.is_some();
        check.ensure(
            named != self.address.is_some(),
            "address",
            "say to whom: `service` and/or `group`, or else `address`",
        );
        check.ensure(self.body <= 4 << 20, "body", "at most 4 MiB");
        check.ensure(
            (Span::millis(1)..=Span::secs(300)).contains(&self.timeout),
            "timeout",
            "between 1ms and 5m",
        );
        check.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<Mirror, String> {
        let policy: Mirror = toml::from_str(toml).map_err(|e| e.to_string())?;
        let checked = policy.check().map(|()| policy);
        checked.map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn a_target_is_enough() {
        let mirror = read("service = \"copy\"").unwrap();
        assert_eq!((mirror.times, mirror.percent), (1, Percent::ALL));
        assert_eq!(mirror.methods, ["GET", "HEAD", "OPTIONS"]);
        read("group = \"gray\"\npercent = 0.01\ntimes = 100").unwrap();
        read("service = \"copy\"\ngroup = \"gray\"").unwrap();
        read("address = \"10.0.0.1:80\"").unwrap();
    }

    #[test]
    fn names_what_is_wrong() {
        for (toml, want) in [
            ("", "address: say to whom"),
            ("service = \"s\"\naddress = \"h:1\"", "address: say to whom"),
            ("service = \"s\"\npercent = 0", "percent: copies nothing"),
            ("service = \"s\"\ntimes = 0", "times: between"),
            ("service = \"s\"\ntimes = 101", "times: between"),
            ("service = \"s\"\nmethods = []", "methods: at least"),
            (
                "service = \"s\"\nmethods = [\"get\"]",
                "methods[0]: a method",
            ),
            ("service = \"s\"\nbody = 4194305", "body: at most"),
            ("service = \"s\"\ntimeout = \"0s\"", "timeout: between"),
        ] {
            let said = read(toml).unwrap_err();
            assert!(said.starts_with(want), "{toml}: {said}");
        }
        assert!(read("address = \"nowhere\"").is_err());
        assert!(read("service = \"s\"\npercent = 0.001").is_err());
    }
}
