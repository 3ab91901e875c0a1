//! A batch in memory, so that a plugin's logic is tested without a host.
//!
//! It keeps rows: what matters here is that it answers as the host does, not how fast.

use std::collections::BTreeMap;

use crate::packed::{Column, Packed};

use super::{Event, Header, Rejection};

/// One event; a name is there once, as in the host.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    headers: BTreeMap<String, Vec<u8>>,
    body: Vec<u8>,
}

impl Row {
    fn of(event: &Event) -> Row {
        let headers = event.headers.iter().map(|header| (header.name.clone(), header.value.clone()));
        Row { headers: headers.collect(), body: event.body.clone() }
    }

    fn event(&self) -> Event {
        let header = |(name, value): (&String, &Vec<u8>)| Header { name: name.clone(), value: value.clone() };
        Event { headers: self.headers.iter().map(header).collect(), body: self.body.clone() }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    rows: Vec<Row>,
    rejected: Vec<(Event, String)>,
}

impl Store {
    pub(super) fn new(bodies: &Packed) -> Store {
        if let Err(misfit) = bodies.fits(bodies.count()) {
            panic!("the bodies of a new batch do not fit together: {misfit}");
        }
        let row = |body: &[u8]| Row { headers: BTreeMap::new(), body: body.to_vec() };
        Store { rows: bodies.iter().map(row).collect(), rejected: Vec::new() }
    }

    pub(super) fn from_events(events: &[Event]) -> Store {
        Store { rows: events.iter().map(Row::of).collect(), rejected: Vec::new() }
    }

    pub(super) fn count(&self) -> u32 {
        self.rows.len() as u32
    }

    pub(super) fn bodies(&self) -> Packed {
        self.rows.iter().map(|row| &row.body).collect()
    }

    pub(super) fn set_bodies(&mut self, bodies: &Packed) -> Result<(), String> {
        bodies.fits(self.rows.len())?;
        for (row, body) in self.rows.iter_mut().zip(bodies) {
            row.body = body.to_vec();
        }
        Ok(())
    }

    pub(super) fn header_names(&self) -> Vec<String> {
        let names = self.rows.iter().flat_map(|row| row.headers.keys());
        names.collect::<std::collections::BTreeSet<_>>().into_iter().cloned().collect()
    }

    pub(super) fn header(&self, name: &str) -> Option<Column> {
        let values: Vec<Option<&Vec<u8>>> = self.rows.iter().map(|row| row.headers.get(name)).collect();
        let first = values.iter().copied().flatten().next()?;
        match values.iter().all(|value| *value == Some(first)) {
            true => Some(Column::Constant(first.clone())),
            false => Some(Column::from_options(values)),
        }
    }

    pub(super) fn set_header(&mut self, name: &str, column: &Column) -> Result<(), String> {
        match column {
            Column::Constant(_) => {}
            Column::Dense(values) => values.fits(self.rows.len())?,
            Column::Sparse(sparse) => {
                sparse.values.fits(sparse.rows.len())?;
                if sparse.rows.windows(2).any(|pair| pair[0] >= pair[1]) {
                    return Err("the rows of a sparse column do not increase".into());
                }
                self.in_range(sparse.rows.iter().copied())?;
            }
        }
        for (row, value) in self.rows.iter_mut().zip(column.iter(usize::MAX)) {
            match value {
                Some(value) => drop(row.headers.insert(name.to_owned(), value.to_vec())),
                None => drop(row.headers.remove(name)),
            }
        }
        Ok(())
    }

    pub(super) fn remove_header(&mut self, name: &str) {
        for row in &mut self.rows {
            row.headers.remove(name);
        }
    }

    pub(super) fn select(&mut self, rows: &[u32]) -> Result<(), String> {
        self.in_range(rows.iter().copied())?;
        self.rows = rows.iter().map(|&row| self.rows[row as usize].clone()).collect();
        Ok(())
    }

    pub(super) fn reject(&mut self, rows: &[Rejection]) -> Result<(), String> {
        self.in_range(rows.iter().map(|rejection| rejection.row))?;
        let reasons: BTreeMap<usize, &str> =
            rows.iter().map(|rejection| (rejection.row as usize, &rejection.reason[..])).collect();
        let all = std::mem::take(&mut self.rows);
        for (index, row) in all.into_iter().enumerate() {
            match reasons.get(&index) {
                Some(reason) => self.rejected.push((row.event(), (*reason).to_owned())),
                None => self.rows.push(row),
            }
        }
        Ok(())
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.rows.iter().map(Row::event).collect()
    }

    pub(super) fn set_events(&mut self, events: &[Event]) {
        self.rows = events.iter().map(Row::of).collect();
    }

    pub(super) fn rejected(&self) -> &[(Event, String)] {
        &self.rejected
    }

    fn in_range(&self, mut rows: impl Iterator<Item = u32>) -> Result<(), String> {
        match rows.find(|&row| row as usize >= self.rows.len()) {
            Some(row) => Err(format!("row {row} of {} events", self.rows.len())),
            None => Ok(()),
        }
    }
}
