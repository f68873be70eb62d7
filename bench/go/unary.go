package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Values of saga.v1.SagaState.
const (
	completed   = 4
	compensated = 5
)

const patience = 2 * time.Minute // so long that a saga without an end is no accident

func split(names string) []string { return strings.Split(names, ",") }

// anyOrder stands in requests where each saga has the id of its own order.
const anyOrder = "00000000-0000-7000-8000-000000000000"

func own(request frame, id string) frame {
	return bytes.ReplaceAll(request, []byte(anyOrder), []byte(id))
}

func call(
	connection *grpc.ClientConn, method string, request frame, pairs ...string,
) (frame, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if len(pairs) > 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, pairs...)
	}
	var answer frame
	err := connection.Invoke(ctx, method, &request, &answer)
	return answer, err
}

// floor makes the calls of a saga with nobody in between: what no coordinator can beat.
func floor(connection *grpc.ClientConn, steps []string, request frame) func() error {
	return func() error {
		id := newID()
		for _, step := range steps {
			_, err := call(
				connection, "/"+step+"/Do", own(request, id), "saga-id", id, "saga-step", "step")
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// startSaga starts a saga and waits for its end, in one call.
func startSaga(connection *grpc.ClientConn, request frame, want uint64) func() error {
	return func() error {
		answer, err := call(connection, "/saga.v1.SagaService/StartSaga", own(request, newID()))
		if err != nil {
			return err
		}
		var state uint64
		err = eachField(answer, func(saga field) {
			_ = eachField(saga.bytes, func(found field) {
				if found.number == 4 {
					state = found.value
				}
			})
		})
		return check(state, want, err)
	}
}

func check(state, want uint64, err error) error {
	if err == nil && state != want {
		return fmt.Errorf("a saga ended in state %d instead of %d", state, want)
	}
	return err
}

// dtmSaga is what a shop asks of DTM, as its Go client would: gRPC, WaitResult, a gid of its own.
type dtmSaga struct {
	connection  *grpc.ClientConn
	participant string
	steps       []string
	request     []byte
}

func (d dtmSaga) submit(want uint64) func() error {
	rest := d.afterGid()
	return func() error {
		id := newID()
		request := append(appendString(nil, 1, id), own(rest, id)...)
		_, err := call(d.connection, "/dtmgimp.Dtm/Submit", request)
		if want == compensated && status.Code(err) == codes.Aborted {
			return nil // it answers so once everything is undone
		}
		if want == compensated && err == nil {
			return fmt.Errorf("a saga went through that a participant refused")
		}
		return err
	}
}

// afterGid is a dtmgimp.DtmRequest but for its first field.
func (d dtmSaga) afterGid() []byte {
	request := appendString(nil, 2, "saga")
	request = appendBytes(request, 3, appendVarint(nil, 1, 1)) // WaitResult
	var urls []map[string]string
	for _, step := range d.steps {
		url := d.participant + "/" + step
		urls = append(urls, map[string]string{"action": url + "/Do", "compensate": url + "/Compensate"})
		request = appendBytes(request, 5, d.request)
	}
	steps, _ := json.Marshal(urls)
	return appendString(request, 7, string(steps))
}
