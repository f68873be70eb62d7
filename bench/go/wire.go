package main

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Messages travel as the bytes they are; only those of gRPC's own services (health, reflection) are
// parsed. So neither end spends time on what no coordinator can be blamed for.
type frame []byte

type frameCodec struct{}

func (frameCodec) Name() string { return "proto" }

func (frameCodec) Marshal(value any) ([]byte, error) {
	switch message := value.(type) {
	case *frame:
		return *message, nil
	case proto.Message:
		return proto.Marshal(message)
	}
	return nil, fmt.Errorf("no message: %T", value)
}

func (frameCodec) Unmarshal(data []byte, value any) error {
	switch message := value.(type) {
	case *frame:
		*message = append(frame(nil), data...)
		return nil
	case proto.Message:
		return proto.Unmarshal(data, message)
	}
	return fmt.Errorf("no message: %T", value)
}

// field is one field of a message; number or bytes is set, by its wire type.
type field struct {
	number protowire.Number
	value  uint64
	bytes  []byte
}

// eachField calls visit for every varint and length-delimited field, in the order of the wire.
func eachField(message []byte, visit func(field)) error {
	for len(message) > 0 {
		number, kind, used := protowire.ConsumeTag(message)
		if used < 0 {
			return protowire.ParseError(used)
		}
		message = message[used:]
		found := field{number: number}
		switch kind {
		case protowire.VarintType:
			found.value, used = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			found.bytes, used = protowire.ConsumeBytes(message)
		default:
			used = protowire.ConsumeFieldValue(number, kind, message)
		}
		if used < 0 {
			return protowire.ParseError(used)
		}
		message = message[used:]
		visit(found)
	}
	return nil
}

func appendBytes(message []byte, number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(message, number, protowire.BytesType), value)
}

func appendString(message []byte, number protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(message, number, protowire.BytesType), value)
}

func appendVarint(message []byte, number protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(message, number, protowire.VarintType), value)
}
