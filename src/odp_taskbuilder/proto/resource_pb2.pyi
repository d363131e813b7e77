from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ResourceCompressionFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESOURCE_COMPRESSION_FORMAT_UNSPECIFIED: _ClassVar[ResourceCompressionFormat]
    RESOURCE_COMPRESSION_FORMAT_GZIP: _ClassVar[ResourceCompressionFormat]
RESOURCE_COMPRESSION_FORMAT_UNSPECIFIED: ResourceCompressionFormat
RESOURCE_COMPRESSION_FORMAT_GZIP: ResourceCompressionFormat

class Resource(_message.Message):
    __slots__ = ("uri", "inline_resource", "client_cache_id", "max_age", "compression_format")
    class InlineResource(_message.Message):
        __slots__ = ("data", "compression_format")
        DATA_FIELD_NUMBER: _ClassVar[int]
        COMPRESSION_FORMAT_FIELD_NUMBER: _ClassVar[int]
        data: bytes
        compression_format: ResourceCompressionFormat
        def __init__(self, data: _Optional[bytes] = ..., compression_format: _Optional[_Union[ResourceCompressionFormat, str]] = ...) -> None: ...
    URI_FIELD_NUMBER: _ClassVar[int]
    INLINE_RESOURCE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_CACHE_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FORMAT_FIELD_NUMBER: _ClassVar[int]
    uri: str
    inline_resource: Resource.InlineResource
    client_cache_id: str
    max_age: _duration_pb2.Duration
    compression_format: ResourceCompressionFormat
    def __init__(self, uri: _Optional[str] = ..., inline_resource: _Optional[_Union[Resource.InlineResource, _Mapping]] = ..., client_cache_id: _Optional[str] = ..., max_age: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., compression_format: _Optional[_Union[ResourceCompressionFormat, str]] = ...) -> None: ...
