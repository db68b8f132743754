//! Which connections a visit of all connections of a core has still to reach.

/// A visit of all connections that has not ended. Connections that are accepted meanwhile beyond
/// the last place are not visited.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionVisit {
    next: u32,
    end: u32,
}

impl SessionVisit {
    /// A visit of the connections with an index below `end`.
    pub(super) fn new(end: u32) -> SessionVisit {
        SessionVisit { next: 0, end }
    }

    /// The next index; `None` if the visit has ended.
    pub(super) fn next_index(&mut self) -> Option<u32> {
        let index = (self.next < self.end).then_some(self.next)?;
        self.next += 1;
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_visit_reaches_each_index_once() {
        let mut visit = SessionVisit::new(3);
        assert_eq!([(); 5].map(|()| visit.next_index()), [Some(0), Some(1), Some(2), None, None]);
        assert_eq!(SessionVisit::new(0).next_index(), None);
    }
}
