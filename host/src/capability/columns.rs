//! The forms in which columns cross the sandbox, each copied once: from guest memory into a vector, or from the host's shared
//! bytes into guest memory.

use std::mem::MaybeUninit;
use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::__internal::{CanonicalAbiInfo, InstanceType, InterfaceType, LowerContext};
use wasmtime::component::{ComponentType, Lift, Lower};

use crate::event::{Column, Event, Packed, PackedError};

#[derive(ComponentType, Lift)]
#[component(record)]
pub struct PackedIn {
    data: Vec<u8>,
    ends: Vec<u32>,
}

impl PackedIn {
    /// # Errors
    /// When `ends` decreases or does not fit the data.
    pub fn checked(self) -> Result<Packed, PackedError> {
        Packed::new(self.data, self.ends)
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub struct SparseIn {
    rows: Vec<u32>,
    values: PackedIn,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub enum ColumnIn {
    #[component(name = "constant")]
    Constant(Vec<u8>),
    #[component(name = "dense")]
    Dense(PackedIn),
    #[component(name = "sparse")]
    Sparse(SparseIn),
}

impl ColumnIn {
    /// # Errors
    /// When its values are not well packed. Whether it fits a batch is for the batch to say.
    pub fn checked(self) -> Result<Column, PackedError> {
        Ok(match self {
            Self::Constant(value) => Column::Constant(value.into()),
            Self::Dense(values) => Column::Dense(values.checked()?),
            Self::Sparse(sparse) => Column::Sparse { rows: sparse.rows.into(), values: sparse.values.checked()? },
        })
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub struct HeaderIn {
    name: Arc<str>,
    value: Vec<u8>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub struct EventIn {
    headers: Vec<HeaderIn>,
    body: Vec<u8>,
}

impl From<EventIn> for Event {
    fn from(event: EventIn) -> Self {
        let headers = event.headers.into_iter().map(|header| (header.name, header.value)).collect();
        Self { headers, body: event.body }
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub struct RejectionIn {
    pub row: u32,
    pub reason: String,
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub struct PackedOut {
    data: Data,
    ends: Ends,
}

impl From<&Packed> for PackedOut {
    fn from(packed: &Packed) -> Self {
        Self { data: Data(packed.data().clone()), ends: Ends(packed.clone()) }
    }
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub struct SparseOut {
    rows: Arc<[u32]>,
    values: PackedOut,
}

#[derive(ComponentType, Lower)]
#[component(variant)]
pub enum ColumnOut {
    #[component(name = "constant")]
    Constant(Data),
    #[component(name = "dense")]
    Dense(PackedOut),
    #[component(name = "sparse")]
    Sparse(SparseOut),
}

impl From<&Column> for ColumnOut {
    fn from(column: &Column) -> Self {
        match column.written_out().as_ref() {
            Column::Constant(value) => Self::Constant(Data(value.clone())),
            Column::Dense(values) => Self::Dense(values.into()),
            Column::Sparse { rows, values } => Self::Sparse(SparseOut { rows: rows.clone(), values: values.into() }),
            Column::Numbers(_) => unreachable!("numbers have been written out"),
        }
    }
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub struct HeaderOut {
    name: Arc<str>,
    value: Vec<u8>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub struct EventOut {
    headers: Vec<HeaderOut>,
    body: Vec<u8>,
}

impl From<Event> for EventOut {
    fn from(event: Event) -> Self {
        let headers = event.headers.into_iter().map(|(name, value)| HeaderOut { name, value }).collect();
        Self { headers, body: event.body }
    }
}

/// Shared bytes on their way into a guest.
///
/// wasmtime does the same for `Bytes` behind its feature `component-model-bytes`; that it does so is why this is sound.
pub struct Data(Bytes);

/// The ends of shared columns on their way into a guest.
pub struct Ends(Packed);

impl AsRef<[u8]> for Data {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u32]> for Ends {
    fn as_ref(&self) -> &[u32] {
        self.0.ends()
    }
}

macro_rules! lower_as_slice {
    ($type:ty as [$item:ty]) => {
        // SAFETY: every item is that of the slice's own implementation, so the type is laid out, checked and flattened as
        // `list` is.
        unsafe impl ComponentType for $type {
            type Lower = <[$item] as ComponentType>::Lower;
            const ABI: CanonicalAbiInfo = <[$item] as ComponentType>::ABI;
            const MAY_REQUIRE_REALLOC: bool = <[$item] as ComponentType>::MAY_REQUIRE_REALLOC;

            fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> wasmtime::Result<()> {
                <[$item] as ComponentType>::typecheck(ty, types)
            }
        }

        // SAFETY: both functions hand the work to the slice's own implementation with what they were given.
        unsafe impl Lower for $type {
            fn linear_lower_to_flat<T>(
                &self,
                cx: &mut LowerContext<'_, T>,
                ty: InterfaceType,
                dst: &mut MaybeUninit<Self::Lower>,
            ) -> wasmtime::Result<()> {
                let slice: &[$item] = self.as_ref();
                <[$item] as Lower>::linear_lower_to_flat(slice, cx, ty, dst)
            }

            fn linear_lower_to_memory<T>(
                &self,
                cx: &mut LowerContext<'_, T>,
                ty: InterfaceType,
                offset: usize,
            ) -> wasmtime::Result<()> {
                let slice: &[$item] = self.as_ref();
                <[$item] as Lower>::linear_lower_to_memory(slice, cx, ty, offset)
            }
        }
    };
}

lower_as_slice!(Data as [u8]);
lower_as_slice!(Ends as [u32]);
