//! Two ways to say one thing: a flag wins over the other way in the environment.

use clap::{ArgMatches, error::ErrorKind, parser::ValueSource};

use super::{AgentCommand, Cli, Command};

/// What stands for the same, as the arguments are called.
const PAIRS: [(&str, &str); 2] = [("token", "token_file"), ("address", "port")];

impl Cli {
    /// Lets go of what the environment says where a flag says it the other way; both said in one
    /// place is an error.
    pub(super) fn overrule(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let mut matches = matches;
        while let Some((_, inner)) = matches.subcommand() {
            matches = inner;
        }
        for (one, other) in PAIRS {
            match (source(matches, one), source(matches, other)) {
                (Some(ValueSource::CommandLine), Some(ValueSource::EnvVariable)) => {
                    self.drop_value(other);
                }
                (Some(ValueSource::EnvVariable), Some(ValueSource::CommandLine)) => {
                    self.drop_value(one);
                }
                (Some(_), Some(_)) => {
                    let text = format!("give --{one} or --{other}, not both\n").replace('_', "-");
                    return Err(Self::tree().error(ErrorKind::ArgumentConflict, text));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn drop_value(&mut self, name: &str) {
        let (token, token_file, service) = match &mut self.command {
            Command::Router(router) => {
                let settings = &mut router.settings;
                (&mut settings.token, &mut settings.token_file, None)
            }
            Command::Ctl(ctl) => (&mut ctl.connect.token, &mut ctl.connect.token_file, None),
            Command::Agent(agent) => match &mut agent.command {
                AgentCommand::Run(run) => {
                    let settings = &mut run.settings;
                    (
                        &mut settings.token,
                        &mut settings.token_file,
                        Some(&mut run.service),
                    )
                }
                AgentCommand::Serve(serve) => {
                    let settings = &mut serve.settings;
                    (
                        &mut settings.token,
                        &mut settings.token_file,
                        Some(&mut serve.service),
                    )
                }
                _ => return,
            },
            _ => return,
        };
        match (name, service) {
            ("token", _) => *token = None,
            ("token_file", _) => *token_file = None,
            ("address", Some(service)) => service.address = None,
            ("port", Some(service)) => service.port = None,
            _ => {}
        }
    }
}

/// Where a value comes from; none: from nowhere, or there is no such argument here.
fn source(matches: &ArgMatches, name: &str) -> Option<ValueSource> {
    let known = matches.try_contains_id(name).unwrap_or(false);
    known.then(|| matches.value_source(name)).flatten()
}
