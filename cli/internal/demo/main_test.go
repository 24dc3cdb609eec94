package demo

import (
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }
