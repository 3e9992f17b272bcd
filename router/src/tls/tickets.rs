//! Session tickets: what a client shows to take up a session again, sealed with keys that all workers
//! share, that outlive certificates, and that a process gets from the one that it takes over from.
//!
//! A ticket is the key's name, a nonce and the sealed session (RFC 5077, 4). Keys change every six
//! hours; the one before is still good for opening.

use std::{
    fmt,
    sync::{RwLock, RwLockReadGuard},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

use crate::clock;

/// How long a key seals, in milliseconds.
const TURN: i64 = 6 * 3600 * 1000;
const NAME: usize = 16;
const KEY: usize = 32;

/// The keys of a process.
#[derive(Default)]
pub(crate) struct Tickets(RwLock<Vec<Key>>);

/// A key, to be handed over. It is not printed anywhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Secret {
    name: [u8; NAME],
    key: [u8; KEY],
    /// Since when it seals, Unix ms.
    since: i64,
}

/// A key in use; the newest comes first.
struct Key {
    secret: Secret,
    seal: LessSafeKey,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Key {
    /// A new one; none: the system has no random numbers.
    fn new(now: i64) -> Option<Self> {
        let (mut name, mut key) = ([0; NAME], [0; KEY]);
        getrandom::fill(&mut name).ok()?;
        getrandom::fill(&mut key).ok()?;
        Self::of(Secret {
            name,
            key,
            since: now,
        })
    }

    fn of(secret: Secret) -> Option<Self> {
        let seal = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &secret.key).ok()?);
        Some(Self { secret, seal })
    }

    fn age(&self, now: i64) -> i64 {
        now.saturating_sub(self.secret.since)
    }
}

impl Tickets {
    /// The keys that are good for something, to be handed over.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        let now = clock::unix_millis();
        let keys = self.read();
        let good = keys.iter().filter(|key| key.age(now) < 2 * TURN);
        good.map(|key| key.secret.clone()).collect()
    }

    /// Takes over another process's keys.
    pub(crate) fn take_over(&self, secrets: Vec<Secret>) {
        let mut taken: Vec<_> = secrets.into_iter().filter_map(Key::of).collect();
        taken.sort_by_key(|key| std::cmp::Reverse(key.secret.since));
        if !taken.is_empty() {
            *self.write() = taken;
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Key>> {
        self.0
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Vec<Key>> {
        self.0
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Puts a new key before the others when its time has come.
    fn turn(&self, now: i64) {
        let due = |keys: &[Key]| keys.first().is_none_or(|key| key.age(now) >= TURN);
        if !due(&self.read()) {
            return;
        }
        let mut keys = self.write();
        if due(&keys)
            && let Some(key) = Key::new(now)
        {
            keys.insert(0, key);
            keys.retain(|key| key.age(now) < 2 * TURN);
        }
    }

    fn seal(&self, plain: &[u8], now: i64) -> Option<Vec<u8>> {
        self.turn(now);
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let keys = self.read();
        let key = keys.first()?;
        let mut sealed = plain.to_vec();
        let (aad, once) = (
            Aad::from(key.secret.name),
            Nonce::assume_unique_for_key(nonce),
        );
        key.seal
            .seal_in_place_append_tag(once, aad, &mut sealed)
            .ok()?;
        Some([&key.secret.name[..], &nonce, &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now: i64) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.read();
        let key = keys
            .iter()
            .find(|key| key.secret.name == *name && key.age(now) < 2 * TURN)?;
        let mut sealed = sealed.to_vec();
        let once = Nonce::assume_unique_for_key(*nonce);
        let plain = key
            .seal
            .open_in_place(once, Aad::from(*name), &mut sealed)
            .ok()?;
        let length = plain.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(TURN / 1000).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, clock::unix_millis())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, clock::unix_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_its_own_key_s_time_and_for_nothing_else() {
        let tickets = Tickets::default();
        let ticket = tickets.seal(b"session", 0).unwrap();
        let open = |ticket: &[u8], now| tickets.open(ticket, now);
        assert_eq!(open(&ticket, TURN - 1).as_deref(), Some(&b"session"[..]));
        // The next key seals, and the one before still opens.
        let next = tickets.seal(b"session", TURN).unwrap();
        assert_ne!(next[..NAME], ticket[..NAME]);
        assert!(open(&ticket, 2 * TURN - 1).is_some());
        assert!(open(&ticket, 2 * TURN).is_none());
        assert!(open(&next, 2 * TURN).is_some());
        for at in 0..next.len() {
            let mut bad = next.clone();
            bad[at] ^= 1;
            assert!(open(&bad, TURN).is_none(), "{at}");
            assert!(open(&next[..at], TURN).is_none(), "{at}");
        }
        assert!(Tickets::default().open(&next, TURN).is_none());
    }

    #[test]
    fn another_process_opens_what_this_one_sealed() {
        let (one, other) = (Tickets::default(), Tickets::default());
        let ticket = one.encrypt(b"session").unwrap();
        let said = serde_json::to_string(&one.secrets()).unwrap();
        assert_eq!(format!("{:?}", one.secrets()), "[***]");
        other.take_over(serde_json::from_str(&said).unwrap());
        assert_eq!(other.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        // It seals with the same key until that one's time is over.
        assert_eq!(other.encrypt(b"x").unwrap()[..NAME], ticket[..NAME]);
        // Nothing to take over changes nothing.
        other.take_over(Vec::new());
        assert!(other.decrypt(&ticket).is_some());
    }
}
