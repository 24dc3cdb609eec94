package server

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// Limits of a connection before and after it has proved who it is (SECURITY XD-07, XD-13, section 6).
const (
	handshakeTimeout = 10 * time.Second
	window           = 64 << 10 // what a caller can make us hold of one stream before it is authenticated
	maxHeaders       = 32 << 10 // a token is 1 to 8 KiB
	maxStreams       = 32
	// A node of a mesh of 100,000 workloads resumes with as many names and versions.
	maxRequest = 32 << 20
)

// Options are how a gRPC server that faces proxies is made: bounded before authentication, pings allowed as often as
// Istio's proxies send them, dead peers found in 40 s.
func Options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window),
		grpc.ReadBufferSize(8 << 10), grpc.WriteBufferSize(16 << 10), grpc.SharedWriteBuffer(true),
		grpc.MaxHeaderListSize(maxHeaders), grpc.MaxConcurrentStreams(maxStreams), grpc.MaxRecvMsgSize(maxRequest),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
}
