//! `cardea check-config`.

use serde::Serialize;

use crate::{
    args::{AgentCommand, CheckConfigArgs, Cli, Command, ConfigRole},
    config::{self, registry::RegistrySettings, router::RouterSettings},
    exit::{Exit, Outcome},
};

/// Checks a role's settings and prints them.
pub(crate) fn run(args: &CheckConfigArgs) -> Outcome {
    let file = args.config.as_deref();
    match parse(args)? {
        Command::Registry(role) => {
            let flags = &role.settings;
            let merged = config::merge(file, flags, &RegistrySettings::defaults())?;
            let checked = merged.settings.clone().into_config();
            checked.map_err(|e| merged.explain(e))?;
            print(args, &merged.settings)
        }
        Command::Router(role) => {
            let flags = &role.settings;
            let merged = config::merge(file, flags, &RouterSettings::defaults())?;
            let checked = merged.settings.clone().into_config();
            checked.map_err(|e| merged.explain(e))?;
            print(args, &merged.settings)
        }
        Command::Agent(role) => {
            let AgentCommand::Serve(role) = role.command else {
                return Err(Exit::Usage("only settings are checked".to_owned()));
            };
            let (config, _) = config::agent::merge(file, &role.settings, &role.service)?;
            print(args, &config)
        }
        _ => Err(Exit::Usage("only roles have settings".to_owned())),
    }
}

/// Reads the flags as the role itself would; a wrong one ends the program like there.
fn parse(args: &CheckConfigArgs) -> Result<Command, Exit> {
    let role: &[&str] = match args.role {
        ConfigRole::Registry => &["registry"],
        ConfigRole::Router => &["router"],
        ConfigRole::Agent => &["agent", "serve"],
    };
    let words = ["cardea"].iter().chain(role).map(|word| (*word).to_owned());
    Cli::read_from(words.chain(args.flags.iter().cloned()))
        .map(|cli| cli.command)
        .map_err(|error| error.exit())
}

fn print<T: Serialize>(args: &CheckConfigArgs, settings: &T) -> Outcome {
    let shown = config::shown(settings);
    let text = if args.json {
        serde_json::to_string_pretty(&shown).map_err(Exit::failed)?
    } else {
        toml::to_string(&shown).map_err(Exit::failed)?
    };
    println!("{}", text.trim_end());
    Ok(())
}
