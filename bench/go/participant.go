package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// participant answers every call of every step with an empty message, perhaps a little later.
type participant struct {
	jitter time.Duration // the longest pause before an answer
	reject string        // the service whose Do is refused; none when empty
	hold   string        // the service that answers no Do before there is a signal
	away   string        // the service that is away before there is a signal
	signal chan struct{} // closed by SIGUSR1
}

// pause is how long this call takes.
func (p *participant) pause() time.Duration {
	if p.jitter == 0 {
		return 0
	}
	return rand.N(p.jitter)
}

// isAway says whether this call is answered with UNAVAILABLE.
func (p *participant) isAway(service string) bool {
	select {
	case <-p.signal:
		return false
	default:
		return service == p.away
	}
}

func (p *participant) rejects(service string, compensates bool) bool {
	return service == p.reject && !compensates
}

// answer is the handler of every method that no service is registered for.
func (p *participant) answer(_ any, stream grpc.ServerStream) error {
	var request frame
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	method, _ := grpc.MethodFromServerStream(stream)
	service, verb, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	time.Sleep(p.pause())
	if service == p.hold {
		<-p.signal
	}
	if p.isAway(service) {
		return status.Error(codes.Unavailable, "away")
	}
	if p.rejects(service, verb == "Compensate") {
		return refuse(stream)
	}
	stream.SetTrailer(metadata.Pairs("saga-outcome", "done"))
	return stream.SendMsg(&frame{})
}

// refuse says no in the words of the coordinator that asks: DTM's are ABORTED.
func refuse(stream grpc.ServerStream) error {
	asked, _ := metadata.FromIncomingContext(stream.Context())
	if len(asked.Get("dtm-gid")) > 0 {
		return status.Error(codes.Aborted, "FAILURE")
	}
	stream.SetTrailer(metadata.Pairs("saga-outcome", "rejected"))
	return status.Error(codes.FailedPrecondition, "refused")
}

// contracts is what reflection tells: the services of a descriptor set, registered here or not.
type contracts map[string]grpc.ServiceInfo

func (c contracts) GetServiceInfo() map[string]grpc.ServiceInfo { return c }

func readContracts(path string, streams bool) (contracts, *protoregistry.Files, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(content, set); err != nil {
		return nil, nil, err
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, nil, err
	}
	found := contracts{}
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			name := string(file.Services().Get(i).FullName())
			if strings.HasPrefix(name, "bench.") || streams && name == "mesh.v1.StepStream" {
				found[name] = grpc.ServiceInfo{}
			}
		}
		return true
	})
	return found, files, nil
}

func participate(args []string) error {
	flags := flag.NewFlagSet("participant", flag.ExitOnError)
	port := flags.Int("port", 0, "where to listen, on 127.0.0.1")
	descriptors := flags.String("descriptors", "", "file with the descriptor set of its contracts")
	jitter := flags.Int("jitter-ms", 0, "answer after 0 to so many milliseconds, at random")
	reject := flags.String("reject", "", "full name of the service whose Do is refused")
	hold := flags.String("hold", "", "full name of the service that answers after SIGUSR1 only")
	away := flags.String("away", "", "full name of the service that is UNAVAILABLE before SIGUSR1")
	streams := flags.Bool("step-stream", false, "serve mesh.v1.StepStream too")
	_ = flags.Parse(args)

	here := &participant{
		jitter: time.Duration(*jitter) * time.Millisecond,
		reject: *reject, hold: *hold, away: *away, signal: make(chan struct{}),
	}
	go here.awaitSignal()
	found, files, err := readContracts(*descriptors, *streams)
	if err != nil {
		return err
	}
	server := grpc.NewServer(
		grpc.ForceServerCodec(frameCodec{}), grpc.UnknownServiceHandler(here.answer))
	if *streams {
		server.RegisterService(&stepStream, here)
	}
	told := reflection.ServerOptions{Services: found, DescriptorResolver: files}
	reflectionv1.RegisterServerReflectionServer(server, reflection.NewServerV1(told))
	reflectionv1alpha.RegisterServerReflectionServer(server, reflection.NewServer(told))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	return serve(server, *port)
}

func (p *participant) awaitSignal() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGUSR1)
	<-told
	close(p.signal)
}

func serve(server *grpc.Server, port int) error {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		<-ended.Done()
		server.Stop()
	}()
	return server.Serve(listener)
}
