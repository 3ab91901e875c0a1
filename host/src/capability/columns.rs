//! The forms in which columns cross the sandbox, each copied once: from guest memory into what the host shares, or from there into
//! guest memory.

use std::mem::MaybeUninit;
use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::__internal::{CanonicalAbiInfo, InstanceType, InterfaceType, LowerContext};
use wasmtime::component::{ComponentType, Lift, Lower, WasmList};
use wasmtime::{AsContext, StoreContext};

use crate::event::{Column, Event, Packed, PackedError};

/// Still in guest memory, where it stays as it is until the guest runs again.
#[derive(ComponentType, Lift)]
#[component(record)]
pub struct PackedIn {
    data: WasmList<u8>,
    ends: WasmList<u32>,
}

impl PackedIn {
    /// Copies it out.
    ///
    /// # Errors
    /// When `ends` decreases or does not fit the data.
    pub fn copied(&self, store: impl AsContext<Data: 'static>) -> Result<Packed, PackedError> {
        let store = store.as_context();
        let data = self.data.as_le_slice(&store);
        Packed::new(Bytes::copy_from_slice(data), integers(&self.ends, &store))
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub struct SparseIn {
    rows: WasmList<u32>,
    values: PackedIn,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub enum ColumnIn {
    #[component(name = "constant")]
    Constant(WasmList<u8>),
    #[component(name = "dense")]
    Dense(PackedIn),
    #[component(name = "sparse")]
    Sparse(SparseIn),
}

impl ColumnIn {
    /// Copies it out.
    ///
    /// # Errors
    /// When its values are not well packed. Whether it fits a batch is for the batch to say.
    pub fn copied(&self, store: impl AsContext<Data: 'static>) -> Result<Column, PackedError> {
        let store = store.as_context();
        Ok(match self {
            Self::Constant(value) => Column::Constant(Bytes::copy_from_slice(value.as_le_slice(&store))),
            Self::Dense(values) => Column::Dense(values.copied(&store)?),
            Self::Sparse(sparse) => {
                Column::Sparse { rows: integers(&sparse.rows, &store), values: sparse.values.copied(&store)? }
            }
        })
    }
}

fn integers<T: 'static>(list: &WasmList<u32>, store: &StoreContext<'_, T>) -> Arc<[u32]> {
    list.as_le_slice(store).iter().copied().map(u32::from_le).collect()
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
