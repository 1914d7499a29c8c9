//! The messages of Milvus' gRPC interface that this program sends and reads, with the field numbers of
//! `milvus.proto`, `schema.proto` and `common.proto` of milvus-proto, which are stable. Fields that are not used
//! are left out; both sides skip fields that they do not know.

use prost::{Enumeration, Message, Oneof};

/// The service, as paths name it.
pub(super) const SERVICE: &str = "milvus.proto.milvus.MilvusService";

/// The kind of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub(super) enum DataType {
    None = 0,
    VarChar = 21,
    FloatVector = 101,
}

/// The outcome of a call. Old servers set `error_code`, new ones also `code`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) error_code: i32,
    #[prost(string, tag = "2")]
    pub(super) reason: String,
    #[prost(int32, tag = "3")]
    pub(super) code: i32,
    #[prost(bool, tag = "4")]
    pub(super) retriable: bool,
}

/// A setting.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Pair {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// A field of a collection.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FieldSchema {
    #[prost(int64, tag = "1")]
    pub(super) field_id: i64,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(bool, tag = "3")]
    pub(super) is_primary_key: bool,
    #[prost(enumeration = "DataType", tag = "5")]
    pub(super) data_type: i32,
    #[prost(message, repeated, tag = "6")]
    pub(super) type_params: Vec<Pair>,
}

/// The fields of a collection, which is sent as bytes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CollectionSchema {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "4")]
    pub(super) fields: Vec<FieldSchema>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct CreateCollection {
    #[prost(string, tag = "3")]
    pub(super) collection_name: String,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) schema: Vec<u8>,
    #[prost(int32, tag = "5")]
    pub(super) shards_num: i32,
    #[prost(int32, tag = "6")]
    pub(super) consistency_level: i32,
    #[prost(message, repeated, tag = "7")]
    pub(super) properties: Vec<Pair>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct AlterCollection {
    #[prost(string, tag = "3")]
    pub(super) collection_name: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) properties: Vec<Pair>,
}

/// A request that only names its collection: drop, describe.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Named {
    #[prost(string, tag = "3")]
    pub(super) collection_name: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct LoadCollection {
    #[prost(string, tag = "3")]
    pub(super) collection_name: String,
    #[prost(int32, tag = "4")]
    pub(super) replica_number: i32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Described {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(message, repeated, tag = "13")]
    pub(super) properties: Vec<Pair>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct CreateIndex {
    #[prost(string, tag = "3")]
    pub(super) collection_name: String,
    #[prost(string, tag = "4")]
    pub(super) field_name: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) extra_params: Vec<Pair>,
    #[prost(string, tag = "6")]
    pub(super) index_name: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
#[expect(clippy::struct_field_names, reason = "the fields are named as in milvus.proto")]
pub(super) struct DescribeIndex {
    #[prost(string, tag = "3")]
    pub(super) collection_name: String,
    #[prost(string, tag = "4")]
    pub(super) field_name: String,
    #[prost(string, tag = "5")]
    pub(super) index_name: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct IndexDescription {
    #[prost(int64, tag = "5")]
    pub(super) indexed_rows: i64,
    #[prost(int64, tag = "6")]
    pub(super) total_rows: i64,
    /// 1 is unissued, 2 in progress, 3 finished, 4 failed.
    #[prost(int32, tag = "7")]
    pub(super) state: i32,
    #[prost(string, tag = "8")]
    pub(super) fail_reason: String,
    #[prost(int64, tag = "9")]
    pub(super) pending_rows: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct DescribedIndex {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(message, repeated, tag = "2")]
    pub(super) descriptions: Vec<IndexDescription>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct GetLoadingProgress {
    #[prost(string, tag = "2")]
    pub(super) collection_name: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct LoadingProgress {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    /// Percent.
    #[prost(int64, tag = "2")]
    pub(super) progress: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Flush {
    #[prost(string, repeated, tag = "3")]
    pub(super) collection_names: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Flushed {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct LongArray {
    #[prost(int64, repeated, tag = "1")]
    pub(super) data: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FloatArray {
    #[prost(float, repeated, tag = "1")]
    pub(super) data: Vec<f32>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct StringArray {
    #[prost(string, repeated, tag = "1")]
    pub(super) data: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Scalars {
    #[prost(oneof = "ScalarData", tags = "3, 6")]
    pub(super) data: Option<ScalarData>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum ScalarData {
    #[prost(message, tag = "3")]
    Longs(LongArray),
    #[prost(message, tag = "6")]
    Strings(StringArray),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Vectors {
    #[prost(int64, tag = "1")]
    pub(super) dimension: i64,
    #[prost(message, optional, tag = "2")]
    pub(super) floats: Option<FloatArray>,
}

/// The values of a field, one for each record.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FieldData {
    #[prost(enumeration = "DataType", tag = "1")]
    pub(super) data_type: i32,
    #[prost(string, tag = "2")]
    pub(super) field_name: String,
    #[prost(oneof = "FieldValues", tags = "3, 4")]
    pub(super) values: Option<FieldValues>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum FieldValues {
    #[prost(message, tag = "3")]
    Scalars(Scalars),
    #[prost(message, tag = "4")]
    Vectors(Vectors),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Upsert {
    #[prost(string, tag = "3")]
    pub(super) collection_name: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) fields: Vec<FieldData>,
    #[prost(uint32, tag = "7")]
    pub(super) num_rows: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Mutated {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(int64, tag = "6")]
    pub(super) insert_count: i64,
    #[prost(int64, tag = "8")]
    pub(super) upsert_count: i64,
}

/// Vectors of queries, which are sent as bytes.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct PlaceholderGroup {
    #[prost(message, repeated, tag = "1")]
    pub(super) placeholders: Vec<Placeholder>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Placeholder {
    #[prost(string, tag = "1")]
    pub(super) tag: String,
    #[prost(enumeration = "DataType", tag = "2")]
    pub(super) data_type: i32,
    /// Little-endian 32-bit floats, one vector in each entry.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub(super) values: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct SearchRequest {
    #[prost(string, tag = "3")]
    pub(super) collection_name: String,
    #[prost(string, tag = "5")]
    pub(super) filter: String,
    #[prost(bytes = "vec", tag = "6")]
    pub(super) placeholder_group: Vec<u8>,
    /// 1 is the language of filters.
    #[prost(int32, tag = "7")]
    pub(super) filter_kind: i32,
    #[prost(string, repeated, tag = "8")]
    pub(super) output_fields: Vec<String>,
    #[prost(message, repeated, tag = "9")]
    pub(super) search_params: Vec<Pair>,
    #[prost(uint64, tag = "11")]
    pub(super) guarantee_timestamp: u64,
    #[prost(int64, tag = "12")]
    pub(super) query_count: i64,
    #[prost(int32, tag = "14")]
    pub(super) consistency_level: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SearchResults {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(message, optional, tag = "2")]
    pub(super) results: Option<ResultData>,
}

/// The hits of all queries, one after the other.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ResultData {
    #[prost(int64, tag = "1")]
    pub(super) query_count: i64,
    #[prost(message, repeated, tag = "3")]
    pub(super) fields: Vec<FieldData>,
    #[prost(float, repeated, tag = "4")]
    pub(super) scores: Vec<f32>,
    #[prost(message, optional, tag = "5")]
    pub(super) ids: Option<Ids>,
    /// The number of hits of each query.
    #[prost(int64, repeated, tag = "6")]
    pub(super) counts: Vec<i64>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Ids {
    #[prost(message, optional, tag = "2")]
    pub(super) strings: Option<StringArray>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct QueryRequest {
    #[prost(string, tag = "3")]
    pub(super) collection_name: String,
    #[prost(string, tag = "4")]
    pub(super) filter: String,
    #[prost(string, repeated, tag = "5")]
    pub(super) output_fields: Vec<String>,
    #[prost(uint64, tag = "8")]
    pub(super) guarantee_timestamp: u64,
    #[prost(int32, tag = "11")]
    pub(super) consistency_level: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct QueryResults {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(message, repeated, tag = "2")]
    pub(super) fields: Vec<FieldData>,
}

/// A message with the outcome of its call.
pub(super) trait Outcome: Message + Default + 'static {
    fn status(&self) -> Option<&Status>;
}

macro_rules! outcomes {
    ($($message:ident),*) => {
        $(impl Outcome for $message {
            fn status(&self) -> Option<&Status> {
                self.status.as_ref()
            }
        })*
    };
}

outcomes!(
    Described,
    DescribedIndex,
    LoadingProgress,
    Flushed,
    Mutated,
    SearchResults,
    QueryResults
);

impl Outcome for Status {
    fn status(&self) -> Option<&Status> {
        Some(self)
    }
}
