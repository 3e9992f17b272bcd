//! Switches: previewing and beginning them, and acting on them.

use reqwest::Method;

use super::{
    Client, ClientError, Precondition,
    objects::traffic_path,
    send::{Call, Repeat},
};
use crate::{
    Name, Span, Traffic,
    api::{Page, Versioned, Written},
    switch::{Acted, NewSwitch, Planned, Shown, Switch, Word},
};

/// What is done to a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwitchAct {
    /// A second person lets it begin.
    Approve,
    /// It stays at its stage.
    Pause,
    /// It goes on.
    Resume,
    /// Everything is as before.
    Undo,
}

impl SwitchAct {
    /// As the path has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Undo => "undo",
        }
    }
}

impl Client {
    /// `GET /v1/switches`: those under way, and the latest that have ended; the newest first.
    pub async fn switches(&self) -> Result<Vec<Versioned<Switch>>, ClientError> {
        let page: Page<Versioned<Switch>> = self.call(Call::get(&["v1", "switches"])).await?;
        Ok(page.items)
    }

    /// `GET /v1/switches/{id}`: one, with what it waits for.
    pub async fn switch(&self, id: &Name) -> Result<Shown, ClientError> {
        self.call(Call::get(&["v1", "switches", id.as_str()])).await
    }

    /// `POST /v1/switches?dry_run=true`: what a switch would do.
    pub async fn preview_switch(&self, asked: &NewSwitch) -> Result<Planned, ClientError> {
        let call = Call::new(Method::POST, &["v1", "switches"]).query("dry_run", Some(true));
        self.call(call.json(asked)).await
    }

    /// `POST /v1/switches?wait=`: begins one, and waits at most `wait` until all routers have its first
    /// stage.
    pub async fn begin_switch(
        &self,
        asked: &NewSwitch,
        wait: Span,
    ) -> Result<Planned, ClientError> {
        let call = Call::new(Method::POST, &["v1", "switches"]);
        self.call(waiting(call, wait).json(asked)).await
    }

    /// `POST /v1/switches/{id}/{act}?wait=`, waiting as [`Client::begin_switch`] does.
    pub async fn act_on_switch(
        &self,
        id: &Name,
        act: SwitchAct,
        word: &Word,
        wait: Span,
    ) -> Result<Acted, ClientError> {
        let path = ["v1", "switches", id.as_str(), act.as_str()];
        self.call(waiting(Call::new(Method::POST, &path), wait).json(word))
            .await
    }

    /// `PUT …/traffic?while_away=`: whatever is there is replaced, also while the database is away; where
    /// the database has something else when it is back, that holds.
    pub async fn put_traffic_while_away(
        &self,
        traffic: &Traffic,
        reason: &str,
    ) -> Result<Written, ClientError> {
        let key = traffic.key();
        let path: Vec<&str> = ["v1"].into_iter().chain(traffic_path(&key)).collect();
        let call = Call::new(Method::PUT, &path)
            .query("while_away", Some(reason))
            .precondition(Precondition::Any);
        self.call(call.json(traffic)).await
    }
}

/// Said again after it was done, it would be refused.
fn waiting(call: Call, wait: Span) -> Call {
    let mut call = call.query("wait", (wait > Span::secs(0)).then_some(wait));
    call.wait = wait;
    call.repeat = Repeat::Unsafe;
    call
}
