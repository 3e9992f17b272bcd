//! `ctl dev …`: talks with the `cardea dev` of this directory.

use std::path::Path;

use super::print;
use crate::{
    args::DevPart,
    dev::control::{self, Order},
    exit::{Exit, Outcome},
};

/// Hands an order over and prints the answer.
pub(super) async fn run(data_dir: &Path, part: DevPart, json: bool) -> Outcome {
    let order = match part {
        DevPart::StopRegistry => Order::StopRegistry,
        DevPart::StartRegistry => Order::StartRegistry,
        DevPart::Status => Order::Status,
    };
    let answer = control::ask(data_dir, order).await.map_err(Exit::failed)?;
    print(json, &answer, |answer| answer.text.clone())?;
    if answer.ok {
        Ok(())
    } else {
        Err(Exit::Status(1))
    }
}
