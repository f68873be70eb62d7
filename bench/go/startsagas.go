package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
)

// newID is a UUIDv7: in the order of time, as both coordinators' own are.
func newID() string {
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], uint64(time.Now().UnixMilli())<<16|0x7000|rand.Uint64()&0xfff)
	binary.BigEndian.PutUint64(id[8:], 1<<63|rand.Uint64()>>2)
	text := hex.EncodeToString(id[:])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}

const mostSagas = 1000 // in one message of the stream

// startSagas keeps sagas in flight over one stream: for those that a message reports as ended, the
// next message starts others.
func startSagas(
	connection *grpc.ClientConn, inFlight int, measured *window, request frame, want uint64,
) error {
	stream, err := connection.NewStream(context.Background(),
		&grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/saga.v1.SagaService/StartSagas")
	if err != nil {
		return err
	}
	out := newOutbox(mostSagas, func(message frame) error { return stream.SendMsg(&message) })
	running := &started{at: map[string]time.Time{}, request: request, out: out}
	running.start(inFlight)
	for len(running.at) > 0 {
		var message frame
		if err := stream.RecvMsg(&message); err == io.EOF {
			return fmt.Errorf("the stream ended with %d sagas in flight", len(running.at))
		} else if err != nil {
			return err
		}
		ended, err := running.take(message, measured, want)
		if err != nil {
			return err
		}
		if !measured.over() {
			running.start(ended)
		}
	}
	out.close()
	return stream.CloseSend()
}

// started knows the sagas in flight.
type started struct {
	at      map[string]time.Time
	request frame
	out     *outbox
}

func (s *started) start(count int) {
	messages := make([][]byte, count)
	for i := range messages {
		id := newID()
		messages[i] = append(appendString(nil, 1, id), own(s.request, id)...)
		s.at[id] = time.Now()
	}
	s.out.add(messages...)
}

// take takes in one saga.v1.StartSagasResponse and says how many sagas have ended.
func (s *started) take(message frame, measured *window, want uint64) (int, error) {
	before := len(s.at)
	err := eachField(message, func(report field) { s.report(report.bytes, measured, want) })
	return before - len(s.at), err
}

const running = 1 // a saga.v1.SagaState: it is on disk

func (s *started) report(message []byte, measured *window, want uint64) {
	var id string
	var state uint64
	var refused []byte
	err := eachField(message, func(found field) {
		switch found.number {
		case 1:
			id = string(found.bytes)
		case 2:
			state = found.value
		case 3:
			refused = found.bytes
		}
	})
	if refused != nil {
		err = fmt.Errorf("a start was refused: %q", refused)
	}
	if err == nil && (state == running || state == 2) {
		return
	}
	measured.record(s.at[id], check(state, want, err))
	delete(s.at, id)
}
