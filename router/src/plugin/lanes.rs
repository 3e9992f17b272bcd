//! Lanes: which lane a request is for, and that it stays there.

use std::net::IpAddr;

use cardea_registry_api::{
    Invalid, Name,
    network::Networks,
    plugin::{Lanes, Missing, lanes::Accept},
};

use super::{Bound, asked::Asked, condition::Condition, decision::Case, groups::Slots};
use crate::{http1::render::line, refusal};

/// Lanes, made ready.
#[derive(Debug)]
pub(super) struct Tagging {
    pub(super) label: Box<str>,
    /// Of the tag, in lower case.
    header: Box<str>,
    member: Box<str>,
    /// The headers that are written anew: the tag's own, and `baggage`.
    gone: [Box<[u8]>; 2],
    accept: Accept,
    callers: Networks,
    entry: Box<[(Condition, Name)]>,
    missing: Missing,
}

/// The verdicts.
pub(super) const VERDICTS: [&str; 5] = ["untagged", "lane", "baseline", "missing", "ignored"];
const UNTAGGED: usize = 0;
const LANE: usize = 1;
const BASELINE: usize = 2;
const MISSING: usize = 3;
const IGNORED: usize = 4;

/// The header of W3C Baggage (<https://www.w3.org/TR/baggage/>).
const BAGGAGE: &str = "baggage";

/// What a request says about its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag<'a> {
    /// Nothing.
    None,
    /// This lane.
    Lane(&'a [u8]),
    /// Something that is no lane's name, or two different ones.
    Unfit,
}

impl Tagging {
    /// Makes checked ones ready.
    pub(super) fn new(lanes: &Lanes) -> Result<Self, Invalid> {
        let rules = lanes.entry.iter();
        let rules = rules.map(|rule| Ok((Condition::new(&rule.when)?, rule.lane.clone())));
        Ok(Self {
            label: lanes.label.as_str().into(),
            header: lanes.header.to_ascii_lowercase().into(),
            member: lanes.member.as_str().into(),
            gone: [lanes.header.as_bytes().into(), BAGGAGE.as_bytes().into()],
            accept: lanes.accept,
            callers: lanes.callers.iter().copied().collect(),
            entry: rules.collect::<Result<_, Invalid>>()?,
            missing: lanes.missing,
        })
    }

    fn believes(&self, caller: IpAddr, trusted: bool) -> bool {
        self.accept == Accept::Anybody || trusted || self.callers.contains(caller)
    }

    fn tag<'a>(&self, asked: &Asked<'a>) -> Tag<'a> {
        let mut tag = Tag::None;
        let mut take = |value: &'a [u8]| {
            tag = match tag {
                Tag::None if is_lane(value) => Tag::Lane(value),
                Tag::Lane(have) if have == value => tag,
                _ => Tag::Unfit,
            };
        };
        asked.each(&self.header, &mut take);
        asked.each(BAGGAGE, |list| {
            members(list)
                .filter_map(|member| self.value(member))
                .for_each(&mut take);
        });
        tag
    }

    /// The value of a member of baggage, if it is the tag.
    fn value<'a>(&self, member: &'a [u8]) -> Option<&'a [u8]> {
        let (key, rest) = member.split_at_checked(self.member.len())?;
        let rest = rest.trim_ascii_start().strip_prefix(b"=")?;
        let value = rest.split(|b| *b == b';').next().unwrap_or_default();
        (key == self.member.as_bytes()).then_some(value.trim_ascii())
    }

    /// Writes the tag's header, and the baggage with everything else that is in it.
    fn write(&self, asked: &Asked<'_>, lane: Option<&[u8]>, out: &mut Vec<u8>) {
        if let Some(lane) = lane {
            line(out, &self.gone[0], lane);
        }
        let begin = out.len();
        out.extend_from_slice(b"Baggage: ");
        let empty = out.len();
        let mut add = |member: &[u8]| {
            if out.len() > empty {
                out.push(b',');
            }
            out.extend_from_slice(member);
        };
        asked.each(BAGGAGE, |list| {
            members(list)
                .filter(|member| self.value(member).is_none())
                .for_each(&mut add);
        });
        if let Some(lane) = lane {
            add(self.member.as_bytes());
            out.push(b'=');
            out.extend_from_slice(lane);
        }
        if out.len() == empty {
            out.truncate(begin);
        } else {
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let members = list.split(|b| *b == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

/// Whether a value may be a lane: 1 to 63 letters, digits, `-`, `.` and `_`.
pub(crate) fn is_lane(value: &[u8]) -> bool {
    let fits = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    (1..=Name::MAX).contains(&value.len()) && value.iter().all(fits)
}

impl Bound<Tagging> {
    /// The stage: finds or sets the tag, and chooses the lane's instances.
    pub(super) fn ask<'c>(&'c self, case: &mut Case<'_, 'c>, slots: &Slots) {
        let policy = &self.policy;
        let asked = case.about.asked;
        let came = policy.tag(asked);
        let believed = policy.believes(asked.caller, asked.trusted);
        let lane = match came {
            Tag::Lane(lane) if believed => Some(lane),
            _ => {
                let mut rules = policy.entry.iter();
                let rule = rules.find(|(condition, _)| condition.holds(asked));
                rule.map(|(_, lane)| lane.as_str().as_bytes())
            }
        };
        let slot = lane.and_then(|lane| slots.lane(case.table, lane));
        let usable = case.usable(slot);
        let verdict = match (lane, slot, usable) {
            (None, ..) if came == Tag::None => UNTAGGED,
            (None, ..) => IGNORED,
            (Some(_), None, _) => BASELINE,
            (Some(_), Some(_), Some(_)) => LANE,
            (Some(_), Some(_), None) => MISSING,
        };
        case.says(&self.head, verdict);
        if self.head.shadow {
            return;
        }
        // What came believed goes on as it came, if both carriers are there; simplest is to write
        // both whenever there is a tag, or one to take off.
        if lane.is_some() || came != Tag::None {
            policy.write(asked, lane, &mut case.scratch.tag);
            case.scratch.request.extend_from_slice(&case.scratch.tag);
            case.decision.request_gone[0] = &policy.gone;
        }
        if let Some(slot) = usable {
            case.decision.slot = Some(slot);
            case.decision.apart = true;
            case.chosen = true;
        } else if verdict == MISSING && policy.missing == Missing::Refuse {
            case.refuse(refusal::NO_PEER);
        }
    }
}

#[cfg(test)]
mod tests;
