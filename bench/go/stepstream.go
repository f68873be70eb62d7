package main

import (
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// mesh.v1.StepStream by hand: each call of a batch is answered by itself, and answers that are ready
// at the same moment share a message.
var stepStream = grpc.ServiceDesc{
	ServiceName: "mesh.v1.StepStream",
	HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{{
		StreamName:    "Run",
		ServerStreams: true,
		ClientStreams: true,
		Handler: func(here any, stream grpc.ServerStream) error {
			return here.(*participant).run(stream)
		},
	}},
}

const (
	compensate  = 2    // a mesh.v1.StepDirection
	mostResults = 4096 // in one message
)

// stepCall is what a no-op participant reads of a mesh.v1.StepCall.
type stepCall struct {
	id          uint64
	service     string
	compensates bool
}

func readCalls(batch []byte) ([]stepCall, error) {
	var calls []stepCall
	err := eachField(batch, func(found field) {
		if found.number == 1 {
			calls = append(calls, readCall(found.bytes))
		}
	})
	return calls, err
}

func readCall(message []byte) stepCall {
	var call stepCall
	_ = eachField(message, func(found field) {
		switch found.number {
		case 1:
			call.id = found.value
		case 2:
			call.service = string(found.bytes)
		case 3:
			call.compensates = found.value == compensate
		}
	})
	return call
}

// result is the mesh.v1.StepResult of a call.
func (p *participant) result(call stepCall) []byte {
	message := appendVarint(nil, 1, call.id)
	if p.isAway(call.service) {
		away := appendString(appendVarint(nil, 1, uint64(codes.Unavailable)), 2, "away")
		return appendBytes(message, 3, away)
	}
	if p.rejects(call.service, call.compensates) {
		refusal := appendString(appendVarint(nil, 1, uint64(codes.FailedPrecondition)), 2, "refused")
		return appendVarint(appendBytes(message, 3, refusal), 4, 1)
	}
	return message
}

// run answers batches until the coordinator goes.
func (p *participant) run(stream grpc.ServerStream) error {
	out := newOutbox(mostResults, func(results frame) error { return stream.SendMsg(&results) })
	defer out.close()
	for {
		var batch frame
		if err := stream.RecvMsg(&batch); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		calls, err := readCalls(batch)
		if err != nil {
			return err
		}
		p.perform(calls, out)
	}
}

func (p *participant) perform(calls []stepCall, out *outbox) {
	if p.jitter > 0 {
		for _, call := range calls {
			time.AfterFunc(p.pause(), func() { out.add(p.result(call)) })
		}
		return
	}
	var results [][]byte
	for _, call := range calls {
		if call.service == p.hold {
			go func() {
				<-p.signal
				out.add(p.result(call))
			}()
		} else {
			results = append(results, p.result(call))
		}
	}
	out.add(results...)
}

// outbox sends what is added as the repeated field of a message: what waits at once, while the next
// gathers, but never more parts than most. When parts come thick it waits for more, as our kit does.
type outbox struct {
	most    int
	mutex   sync.Mutex
	changed sync.Cond
	parts   [][]byte
	closed  bool
	ended   sync.WaitGroup
}

func newOutbox(most int, send func(frame) error) *outbox {
	out := &outbox{most: most}
	out.changed.L = &out.mutex
	out.ended.Add(1)
	go out.send(send)
	return out
}

func (o *outbox) add(parts ...[]byte) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.parts = append(o.parts, parts...)
	o.changed.Signal()
}

func (o *outbox) send(send func(frame) error) {
	defer o.ended.Done()
	pace := pace{last: time.Now()}
	for {
		time.Sleep(pace.wait(o.ready()))
		parts := o.take()
		pace.sent(len(parts))
		if len(parts) == 0 {
			return
		}
		var message frame
		for _, part := range parts {
			message = appendBytes(message, 1, part)
		}
		if send(message) != nil {
			return
		}
	}
}

// ready waits for parts and says how many there are.
func (o *outbox) ready() int {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	for len(o.parts) == 0 && !o.closed {
		o.changed.Wait()
	}
	return len(o.parts)
}

// take waits for parts; none when the outbox is closed.
func (o *outbox) take() [][]byte {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	for len(o.parts) == 0 && !o.closed {
		o.changed.Wait()
	}
	if o.closed {
		return nil
	}
	parts := o.parts[:min(len(o.parts), o.most)]
	o.parts = o.parts[len(parts):]
	return parts
}

func (o *outbox) close() {
	o.mutex.Lock()
	o.closed = true
	o.mutex.Unlock()
	o.changed.Signal()
	o.ended.Wait()
}
