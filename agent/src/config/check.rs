//! What the types of a [`Config`] alone cannot check.

use cardea_registry_api::{
    Invalid, Span,
    api::Registration,
    client::{Client, ClientConfig},
    invalid::Check,
};

use super::{Config, ProbeConfig, ServiceConfig, WarmUpConfig};

/// Whether the addresses of the registries can be used. The token is masked: it may come from a file
/// that is read at start.
pub(super) fn registries(config: &Config) -> Result<(), Invalid> {
    let client = ClientConfig {
        addresses: config.registries.clone(),
        token: config.token.clone(),
        ca_file: config.ca_file.clone(),
        ..ClientConfig::default()
    };
    Client::check(&client).map_err(|mut invalid| {
        for error in &mut invalid.errors {
            if let Some(rest) = error.field.strip_prefix("addresses") {
                error.field = format!("registries{rest}");
            }
        }
        invalid
    })
}

pub(super) fn service(config: &Config, service: &ServiceConfig) -> Result<(), Invalid> {
    let mut check = Check::default();
    check.ensure(
        service.address.is_some() != service.port.is_some(),
        if service.port.is_some() {
            "port"
        } else {
            "address"
        },
        "give `address` (host:port), or `port` alone to have the host found out",
    );
    check.ensure(service.port != Some(0), "port", "a port is 1 to 65535");
    check.ensure(
        service.stop_ceiling <= Span::secs(60),
        "stop_ceiling",
        "between 0s and 60s; 5s to 10s is usual",
    );
    check.merge("", instance(config, service));
    check.merge("probe", probe(&service.probe));
    check.merge("warm_up", warm_up(&service.warm_up));
    check.finish()
}

/// The registry's own limits, so that they are known before the registry is asked.
fn instance(config: &Config, service: &ServiceConfig) -> Result<(), Invalid> {
    let address = match &service.address {
        Some(address) => address.clone(),
        None => "localhost:1"
            .parse()
            .unwrap_or_else(|_| unreachable!("`localhost:1` is an address")),
    };
    let registration = registration(service, address);
    let key = cardea_registry_api::InstanceKey {
        cluster: config.cluster.clone(),
        service: service.name.clone(),
        id: registration.address.to_id(),
    };
    registration.into_instance(key, 0).check()
}

/// What the registry is told about a service at an address.
pub(crate) fn registration(
    service: &ServiceConfig,
    address: cardea_registry_api::Address,
) -> Registration {
    Registration {
        weight: service.weight,
        zone: service.zone.clone(),
        labels: service.labels.clone(),
        version: service.version.clone(),
        capacity: service.capacity,
        lease: Some(service.lease),
        ..Registration::at(address)
    }
}

fn probe(probe: &ProbeConfig) -> Result<(), Invalid> {
    let mut check = Check::default();
    let given = [
        ("tcp", probe.tcp.is_some()),
        ("http", probe.http.is_some()),
        ("exec", !probe.exec.is_empty()),
    ];
    let mut kinds = given.iter().filter(|(_, given)| *given);
    kinds.next();
    if let Some((second, _)) = kinds.next() {
        check.ensure(false, second, "give one of `tcp`, `http` and `exec`");
    }
    check.merge("http", probe.http.as_deref().map_or(Ok(()), url));
    check.ensure(
        probe.exec.first().is_none_or(|program| !program.is_empty()),
        "exec",
        "begin with the program: [\"/usr/bin/check\", \"argument\"]",
    );
    check.ensure(
        probe.statuses.is_empty() || probe.http.is_some(),
        "statuses",
        "only an `http` probe has statuses",
    );
    check.ensure(
        probe.statuses.len() <= 64 && probe.statuses.iter().all(|s| (200..=599).contains(s)),
        "statuses",
        "at most 64 HTTP statuses, 200 to 599",
    );
    for (field, span) in [("interval", probe.interval), ("timeout", probe.timeout)] {
        check.ensure(
            (Span::millis(100)..=Span::secs(300)).contains(&span),
            field,
            "between 100ms and 5m",
        );
    }
    for (field, count) in [("failures", probe.failures), ("successes", probe.successes)] {
        check.ensure((1..=100).contains(&count), field, "between 1 and 100");
    }
    check.finish()
}

fn warm_up(warm_up: &WarmUpConfig) -> Result<(), Invalid> {
    let mut check = Check::default();
    check.ensure(
        warm_up.time <= Span::secs(3600),
        "time",
        "between 0s and 1h",
    );
    check.merge("url", warm_up.url.as_deref().map_or(Ok(()), url));
    check.ensure(
        (Span::millis(100)..=Span::secs(3600)).contains(&warm_up.timeout),
        "timeout",
        "between 100ms and 1h",
    );
    check.finish()
}

/// A path at the service's address, or a whole URL.
fn url(text: &str) -> Result<(), Invalid> {
    let whole = if text.starts_with('/') {
        format!("http://localhost{text}")
    } else {
        text.to_owned()
    };
    let ok = reqwest::Url::parse(&whole)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if ok {
        Ok(())
    } else {
        Err(Invalid::field(
            "",
            format!(
                "`{text}`: write a path such as /ready, or a URL such as http://127.0.0.1:9001/ready"
            ),
        ))
    }
}

/// Whether two services of one name would be one instance.
pub(super) fn same_instance(one: &ServiceConfig, other: &ServiceConfig) -> bool {
    match (&one.id, &other.id) {
        (Some(one), Some(other)) => one == other,
        (None, None) => (&one.address, one.port) == (&other.address, other.port),
        _ => false,
    }
}
