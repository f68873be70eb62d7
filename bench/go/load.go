package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// A load keeps a number of sagas in flight: each that ends is followed by another. It warms up, says
// "begin" on a line of its own, measures, says what it found as JSON, and lets what is in flight end.
type window struct {
	mutex        sync.Mutex
	begin, end   time.Time
	latencies    []time.Duration // of what ended between begin and end
	finished     int             // all that ended as expected, warm-up and end included
	wrong        int             // all that did not
	wrongExample string
	cpu          time.Duration // of this process, between begin and end
}

// report is what is printed at the end.
type report struct {
	Seconds   float64 `json:"seconds"`
	Count     int     `json:"count"` // ended within these seconds
	PerSecond float64 `json:"per_second"`
	P50Ms     float64 `json:"p50_ms"`
	P99Ms     float64 `json:"p99_ms"`
	Finished  int     `json:"finished"` // before, within and after
	Wrong     int     `json:"wrong"`
	CPU       float64 `json:"cpu_s"` // of this process, within these seconds
	Example   string  `json:"example,omitempty"`
}

// over says whether no further saga may be started.
func (w *window) over() bool { return time.Now().After(w.end) }

// tell says on standard output when the window begins and ends.
func (w *window) tell() <-chan struct{} {
	told := make(chan struct{})
	go func() {
		defer close(told)
		time.Sleep(time.Until(w.begin))
		fmt.Println("begin")
		before := spent()
		time.Sleep(time.Until(w.end))
		w.cpu = spent() - before
		fmt.Println("end")
	}()
	return told
}

// spent is the CPU time of this process so far.
func spent() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// record takes in how one saga went.
func (w *window) record(started time.Time, err error) {
	now := time.Now()
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if err != nil {
		w.wrong++
		w.wrongExample = err.Error()
		return
	}
	w.finished++
	if now.After(w.begin) && now.Before(w.end) {
		w.latencies = append(w.latencies, now.Sub(started))
	}
}

func (w *window) report() report {
	seconds := w.end.Sub(w.begin).Seconds()
	slices.Sort(w.latencies)
	at := func(share float64) float64 {
		if len(w.latencies) == 0 {
			return 0
		}
		return float64(w.latencies[int(share*float64(len(w.latencies)-1))].Microseconds()) / 1e3
	}
	return report{
		Seconds: seconds, Count: len(w.latencies), PerSecond: float64(len(w.latencies)) / seconds,
		P50Ms: at(0.50), P99Ms: at(0.99), Finished: w.finished, Wrong: w.wrong,
		CPU: w.cpu.Seconds(), Example: w.wrongExample,
	}
}

// load runs one window against one target.
func load(args []string) error {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	kind := flags.String("kind", "", "floor, unary, stream or dtm")
	address := flags.String("address", "", "where the target listens")
	inFlight := flags.Int("in-flight", 1, "how many sagas at a time")
	warm := flags.Duration("warm", time.Second, "how long it runs before it is measured")
	seconds := flags.Duration("for", 5*time.Second, "how long it is measured")
	request := flags.String("request", "", "file: a saga.v1.StartSagaRequest without saga_id;"+
		" for floor and dtm a step's request")
	steps := flags.String("steps", "", "for floor and dtm: full names of the step services")
	participant := flags.String("participant", "", "for dtm: where the participant listens")
	channels := flags.Int("channels", 1, "how many connections share the sagas")
	state := flags.Uint64("state", completed, "the saga.v1.SagaState that every saga has to end in")
	_ = flags.Parse(args)

	body, err := os.ReadFile(*request)
	if err != nil {
		return err
	}
	connections, err := connect(*address, min(*channels, *inFlight))
	if err != nil {
		return err
	}

	begin := time.Now().Add(*warm)
	measured := &window{begin: begin, end: begin.Add(*seconds)}
	told := measured.tell()
	share := func(connection *grpc.ClientConn, inFlight int) error {
		switch *kind {
		case "floor":
			eachInFlight(inFlight, measured, floor(connection, split(*steps), body))
		case "unary":
			eachInFlight(inFlight, measured, startSaga(connection, body, *state))
		case "dtm":
			saga := dtmSaga{connection, *participant, split(*steps), body}
			eachInFlight(inFlight, measured, saga.submit(*state))
		case "stream":
			return startSagas(connection, inFlight, measured, body, *state)
		default:
			return fmt.Errorf("no such kind: %q", *kind)
		}
		return nil
	}
	if err := inShares(connections, *inFlight, share); err != nil {
		return err
	}
	<-told
	return json.NewEncoder(os.Stdout).Encode(measured.report())
}

// connect opens connections of their own to one address.
func connect(address string, count int) ([]*grpc.ClientConn, error) {
	connections := make([]*grpc.ClientConn, count)
	for i := range connections {
		connection, err := grpc.NewClient(address,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodec(frameCodec{}), grpc.WaitForReady(true)))
		if err != nil {
			return nil, err
		}
		connections[i] = connection
	}
	return connections, nil
}

// inShares divides what is in flight among connections and waits for all of them.
func inShares(
	connections []*grpc.ClientConn, inFlight int, share func(*grpc.ClientConn, int) error,
) error {
	failures := make(chan error, len(connections))
	for i, connection := range connections {
		part := inFlight / len(connections)
		if i < inFlight%len(connections) {
			part++
		}
		go func() { failures <- share(connection, part) }()
	}
	var first error
	for range connections {
		if err := <-failures; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// eachInFlight runs one saga after the other, so many at a time.
func eachInFlight(inFlight int, measured *window, saga func() error) {
	var workers sync.WaitGroup
	for range inFlight {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for !measured.over() {
				started := time.Now()
				measured.record(started, saga())
			}
		}()
	}
	workers.Wait()
}
