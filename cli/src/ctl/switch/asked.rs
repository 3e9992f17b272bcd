//! What the command line asks of a switch.

use cardea_registry_api::switch::NewSwitch;

use crate::{
    args::{GuardArg, GuardLimits, SwitchArgs},
    exit::Exit,
};

/// A limit of a guard that is left out is a mistake: one of both was not meant.
pub(super) fn switch(args: SwitchArgs) -> Result<NewSwitch, Exit> {
    let mut asked = NewSwitch::new(args.cluster, args.service, args.to.into_iter().collect());
    asked.narrower = args.narrower;
    asked.stages = if args.at_once { vec![100] } else { args.stages };
    asked.watch = args.watch;
    asked.reason = args.reason;
    let guards = &mut asked.guards;
    for guard in args.without {
        match guard {
            GuardArg::Errors => guards.errors = None,
            GuardArg::P99 => guards.p99 = None,
            GuardArg::Capacity => guards.capacity = false,
            GuardArg::Routers => guards.routers = None,
        }
    }
    let GuardLimits {
        errors_above,
        p99_percent,
        p99_margin,
        least_requests,
        routers_within,
    } = args.limits;
    let off = |flag: &str, guard: &str| {
        Exit::Usage(format!(
            "{flag} is for the guard {guard}, which `--without {guard}` leaves out"
        ))
    };
    if let Some(above) = errors_above {
        let guard = guards.errors.as_mut();
        guard.ok_or_else(|| off("--errors-above", "errors"))?.above = above;
    }
    if let Some(percent) = p99_percent {
        let guard = guards.p99.as_mut();
        guard.ok_or_else(|| off("--p99-percent", "p99"))?.percent = percent;
    }
    if let Some(margin) = p99_margin {
        let guard = guards.p99.as_mut();
        guard.ok_or_else(|| off("--p99-margin", "p99"))?.margin = margin;
    }
    if let Some(least) = least_requests {
        if guards.errors.is_none() && guards.p99.is_none() {
            return Err(Exit::Usage(
                "--least-requests is for the guards errors and p99, which are left out".to_owned(),
            ));
        }
        if let Some(errors) = &mut guards.errors {
            errors.least_requests = least;
        }
        if let Some(p99) = &mut guards.p99 {
            p99.least_requests = least;
        }
    }
    if let Some(within) = routers_within {
        let guard = guards.routers.as_mut();
        guard
            .ok_or_else(|| off("--routers-within", "routers"))?
            .within = within;
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use cardea_registry_api::Span;
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        switch: SwitchArgs,
    }

    fn read(more: &[&str]) -> Result<NewSwitch, Exit> {
        let line = ["switch", "dc-a", "--to", "dc-b=100"].iter().chain(more);
        switch(Line::try_parse_from(line).unwrap().switch)
    }

    #[test]
    fn guards_have_the_limits_that_are_given_and_defaults_else() {
        assert_eq!(
            read(&[]).unwrap().guards,
            cardea_registry_api::switch::Guards::default()
        );
        let flags = [
            "--errors-above",
            "0.25",
            "--p99-percent",
            "150",
            "--p99-margin",
            "5ms",
            "--least-requests",
            "20",
            "--routers-within",
            "9s",
        ];
        let guards = read(&flags).unwrap().guards;
        let errors = guards.errors.unwrap();
        assert_eq!((errors.above, errors.least_requests), (25, 20));
        let p99 = guards.p99.unwrap();
        assert_eq!(
            (p99.percent, p99.margin, p99.least_requests),
            (150, Span::millis(5), 20)
        );
        assert_eq!(guards.routers.unwrap().within, Span::secs(9));
        for (without, flag, value) in [
            ("errors", "--errors-above", "1"),
            ("p99", "--p99-percent", "150"),
            ("p99", "--p99-margin", "5ms"),
            ("errors,p99", "--least-requests", "5"),
            ("routers", "--routers-within", "9s"),
        ] {
            let refused = read(&["--without", without, flag, value]);
            let Err(Exit::Usage(why)) = refused else {
                panic!("{flag}: {refused:?}");
            };
            assert!(why.starts_with(flag), "{why}");
        }
    }
}
