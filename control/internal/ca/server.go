package ca

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/ambit-mesh/ambit/api/ca"
	"github.com/ambit-mesh/ambit/control/source"
)

// Callers verifies tokens.
type Callers interface {
	Verify(ctx context.Context, token string) (source.Caller, error)
}

// Server answers certificate requests. What it is asked and why it refuses goes to the log, never to the caller.
type Server struct {
	// Authority is the one in force; nil while nothing may be signed.
	Authority func() *Authority
	// Issued is told of every certificate: who signed it and when it ends. May be nil.
	Issued  func(by *Authority, until time.Time)
	Callers Callers
	Rules   Rules
	Log     *slog.Logger
	Now     func() time.Time
	Count   func(result string) // success, unauthenticated, limited, refused_csr, refused_identity, not_ready, sign_error

	limits limiter
}

// Register adds the service to g. The handler authenticates before it reads the request: without a credential a
// stranger's bytes are not even parsed.
func (s *Server) Register(g *grpc.Server) {
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "istio.v1.auth.IstioCertificateService",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "CreateCertificate",
			Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				return s.create(ctx, decode)
			},
		}},
		Metadata: "api/ca/ca.proto",
	}, s)
}

// refused is all that a caller learns.
const refused = "certificate request refused"

func (s *Server) create(ctx context.Context, decode func(any) error) (*ca.IstioCertificateResponse, error) {
	log := s.Log
	if p, ok := peer.FromContext(ctx); ok {
		log = log.With("from", p.Addr.String())
	}
	refuse := func(code codes.Code, result, why string) error {
		s.Count(result)
		log.Warn("certificate refused", "result", result, "why", why)
		return status.Error(code, refused)
	}
	caller, err := Authenticate(ctx, s.Callers)
	if err != nil {
		return nil, refuse(codes.Unauthenticated, "unauthenticated", err.Error())
	}
	log = log.With("caller", caller.Account(), "pod", caller.Pod)
	node, err := s.Rules.node(caller)
	if err != nil {
		return nil, refuse(codes.Unauthenticated, "refused_identity", err.Error())
	}
	key := "node " + node
	if node == "" {
		key = "account " + caller.Account()
	}
	now := s.Now()
	if !s.limits.allow(key, now) {
		return nil, refuse(codes.ResourceExhausted, "limited", "more requests than "+key+" may make")
	}
	req := &ca.IstioCertificateRequest{}
	if err := decode(req); err != nil {
		return nil, refuse(codes.InvalidArgument, "refused_csr", "read the request: "+err.Error())
	}
	asked := ""
	if v, ok := req.GetMetadata().GetFields()["ImpersonatedIdentity"]; ok {
		if asked = v.GetStringValue(); asked == "" {
			return nil, refuse(codes.Unauthenticated, "refused_identity", "ImpersonatedIdentity is no text")
		}
	}
	id, err := s.Rules.Allow(caller, asked)
	if err != nil {
		return nil, refuse(codes.Unauthenticated, "refused_identity", err.Error())
	}
	authority := s.Authority()
	if authority == nil {
		return nil, refuse(codes.Unavailable, "not_ready", "a new root certificate is on its way to the proxies; nothing is signed before it has got around")
	}
	pub, err := requestKey(req.Csr)
	if err == nil && authority.owns(pub) {
		err = errors.New("key is the CA's own")
	}
	if err != nil {
		return nil, refuse(codes.InvalidArgument, "refused_csr", err.Error())
	}
	chain, leaf, err := authority.Sign(pub, id, seconds(req.ValidityDuration), now)
	if err != nil {
		return nil, refuse(codes.Internal, "sign_error", err.Error())
	}
	s.Count("success")
	if s.Issued != nil {
		s.Issued(authority, leaf.NotAfter)
	}
	log.Info("certificate issued", "identity", id, "node", node, "serial", fmt.Sprintf("%x", leaf.SerialNumber), "until", leaf.NotAfter)
	return &ca.IstioCertificateResponse{CertChain: chain}, nil
}

// seconds reads a lifetime without overflow.
func seconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), int64(MaxTTL/time.Second))) * time.Second
}

// Authenticate finds who calls by the one credential that counts: a single bearer token.
func Authenticate(ctx context.Context, callers Callers) (source.Caller, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	if len(values) != 1 {
		return source.Caller{}, fmt.Errorf("call has %d authorization headers, want one", len(values))
	}
	token, ok := strings.CutPrefix(values[0], "Bearer ")
	if !ok || token == "" {
		return source.Caller{}, errors.New("authorization is no bearer token")
	}
	return callers.Verify(ctx, token)
}
