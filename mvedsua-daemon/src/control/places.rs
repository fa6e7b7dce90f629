//! Who may be connected at once: root, or the daemon's own user, has places that nobody else can take, every other user a few.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many connections root has, and the user that the daemon runs as.
const OWN: usize = 64;
/// How many connections each other user has.
const EACH: usize = 8;
/// How many connections all other users have together.
const OTHERS: usize = 64;

/// The places of all users.
#[derive(Debug)]
pub(super) struct Places {
    /// The user that the daemon runs as.
    own: u32,
    taken: Arc<Mutex<HashMap<u32, usize>>>,
}

/// A place, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    uid: u32,
    taken: Arc<Mutex<HashMap<u32, usize>>>,
}

fn lock(taken: &Mutex<HashMap<u32, usize>>) -> MutexGuard<'_, HashMap<u32, usize>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Places {
    pub(super) fn new(own: u32) -> Self {
        Places { own, taken: Arc::default() }
    }

    /// Takes a place for a connection of a user.
    ///
    /// # Errors
    ///
    /// Says who has how many, where none is free.
    pub(super) fn take(&self, uid: u32) -> Result<Place, String> {
        let is_own = |uid: u32| uid == 0 || uid == self.own;
        let mut taken = lock(&self.taken);
        let others: usize = taken.iter().filter(|(uid, _)| !is_own(**uid)).map(|(_, count)| *count).sum();
        let mine = taken.get(&uid).copied().unwrap_or(0);
        let most = if is_own(uid) { OWN } else { EACH };
        if mine >= most {
            return Err(format!("user {uid} has {mine} connections already, which is the most"));
        }
        if !is_own(uid) && others >= OTHERS {
            return Err(format!("users other than root have {others} connections already, which is the most"));
        }
        taken.insert(uid, mine + 1);
        Ok(Place { uid, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        if let Some(count) = taken.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_the_places_of_another() {
        let places = Places::new(7);
        let mine: Vec<Place> = (0..EACH).map(|_| places.take(1000).expect("a place is free")).collect();
        assert!(places.take(1000).is_err_and(|why| why.starts_with("user 1000 has 8 connections")));
        let others: Vec<Place> =
            (0..OTHERS - EACH).map(|index| places.take(2000 + index as u32).expect("a place is free")).collect();
        assert!(places.take(3000).is_err_and(|why| why.starts_with("users other than root have 64")));
        let root: Vec<Place> = (0..OWN).map(|_| places.take(0).expect("root has places of its own")).collect();
        assert!(places.take(0).is_err() && places.take(7).is_ok());
        drop((mine, others, root));
        assert!(places.take(1000).is_ok());
        assert_eq!(lock(&places.taken).len(), 0, "nothing is kept of those who left");
    }
}
