package store

import (
	"slices"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// setDefaults fills in what Kubernetes' API server fills in, where something here reads it.
func setDefaults(o kinds.Object) {
	switch o := o.(type) {
	case *corev1.Namespace:
		namespaceDefaults(o)
	case *corev1.Service:
		serviceDefaults(&o.Spec)
	case *corev1.Pod:
		podDefaults(&o.Spec)
		if o.Status.Phase == "" {
			o.Status.Phase = corev1.PodPending
		}
		if o.Status.QOSClass == "" {
			o.Status.QOSClass = corev1.PodQOSBestEffort
		}
	case *appsv1.Deployment:
		def(&o.Spec.Replicas, 1)
		def(&o.Spec.RevisionHistoryLimit, 10)
		def(&o.Spec.ProgressDeadlineSeconds, 600)
		if o.Spec.Strategy.Type == "" {
			o.Spec.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
		}
		if o.Spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
			if o.Spec.Strategy.RollingUpdate == nil {
				o.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{}
			}
			def(&o.Spec.Strategy.RollingUpdate.MaxSurge, intstr.FromString("25%"))
			def(&o.Spec.Strategy.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
		}
		podDefaults(&o.Spec.Template.Spec)
	case *appsv1.ReplicaSet:
		def(&o.Spec.Replicas, 1)
		podDefaults(&o.Spec.Template.Spec)
	case *appsv1.DaemonSet:
		if o.Spec.UpdateStrategy.Type == "" {
			o.Spec.UpdateStrategy.Type = appsv1.RollingUpdateDaemonSetStrategyType
		}
		if o.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
			if o.Spec.UpdateStrategy.RollingUpdate == nil {
				o.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{}
			}
			def(&o.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
			def(&o.Spec.UpdateStrategy.RollingUpdate.MaxSurge, intstr.FromInt32(0))
		}
		podDefaults(&o.Spec.Template.Spec)
	case *appsv1.StatefulSet:
		def(&o.Spec.Replicas, 1)
		if o.Spec.PodManagementPolicy == "" {
			o.Spec.PodManagementPolicy = appsv1.OrderedReadyPodManagement
		}
		if o.Spec.UpdateStrategy.Type == "" {
			o.Spec.UpdateStrategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
		}
		podDefaults(&o.Spec.Template.Spec)
	case *batchv1.Job:
		if o.Spec.Parallelism == nil { // with it and without completions, the job is a queue of work
			def(&o.Spec.Completions, 1)
		}
		def(&o.Spec.Parallelism, 1)
		def(&o.Spec.BackoffLimit, 6)
		podDefaults(&o.Spec.Template.Spec)
	case *corev1.Secret:
		if o.Type == "" {
			o.Type = corev1.SecretTypeOpaque
		}
	}
}

// def fills in a pointer that is not set.
func def[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

func namespaceDefaults(ns *corev1.Namespace) {
	if ns.Labels == nil {
		ns.Labels = map[string]string{}
	}
	ns.Labels[corev1.LabelMetadataName] = ns.Name
	if len(ns.Spec.Finalizers) == 0 && ns.DeletionTimestamp == nil {
		ns.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
	}
	if ns.Status.Phase == "" {
		ns.Status.Phase = corev1.NamespaceActive
	}
}

func serviceDefaults(spec *corev1.ServiceSpec) {
	if spec.Type == "" {
		spec.Type = corev1.ServiceTypeClusterIP
	}
	if spec.SessionAffinity == "" {
		spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	if spec.SessionAffinity == corev1.ServiceAffinityClientIP && spec.SessionAffinityConfig == nil {
		spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(10800))}}
	}
	if spec.Type != corev1.ServiceTypeExternalName {
		def(&spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	}
	if slices.Contains([]corev1.ServiceType{corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer}, spec.Type) {
		if spec.ExternalTrafficPolicy == "" {
			spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
		}
		if spec.Type == corev1.ServiceTypeLoadBalancer {
			def(&spec.AllocateLoadBalancerNodePorts, true)
		}
	}
	for i := range spec.Ports {
		p := &spec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == (intstr.IntOrString{}) {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
}

func podDefaults(spec *corev1.PodSpec) {
	if spec.RestartPolicy == "" {
		spec.RestartPolicy = corev1.RestartPolicyAlways
	}
	if spec.DNSPolicy == "" {
		spec.DNSPolicy = corev1.DNSClusterFirst
	}
	if spec.SchedulerName == "" {
		spec.SchedulerName = corev1.DefaultSchedulerName
	}
	if spec.ServiceAccountName == "" {
		spec.ServiceAccountName = spec.DeprecatedServiceAccount
	}
	spec.DeprecatedServiceAccount = spec.ServiceAccountName
	def(&spec.TerminationGracePeriodSeconds, int64(30))
	if spec.SecurityContext == nil {
		spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			containerDefaults(&list[i])
		}
	}
	for i := range spec.Volumes {
		volumeDefaults(&spec.Volumes[i])
	}
}

func containerDefaults(c *corev1.Container) {
	if c.TerminationMessagePath == "" {
		c.TerminationMessagePath = corev1.TerminationMessagePathDefault
	}
	if c.TerminationMessagePolicy == "" {
		c.TerminationMessagePolicy = corev1.TerminationMessageReadFile
	}
	if c.ImagePullPolicy == "" {
		c.ImagePullPolicy = corev1.PullIfNotPresent
	}
	for i := range c.Ports {
		if c.Ports[i].Protocol == "" {
			c.Ports[i].Protocol = corev1.ProtocolTCP
		}
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil && from.FieldRef != nil && from.FieldRef.APIVersion == "" {
			from.FieldRef.APIVersion = "v1"
		}
	}
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if p == nil {
			continue
		}
		for _, f := range []struct {
			at    *int32
			value int32
		}{{&p.TimeoutSeconds, 1}, {&p.PeriodSeconds, 10}, {&p.SuccessThreshold, 1}, {&p.FailureThreshold, 3}} {
			if *f.at == 0 {
				*f.at = f.value
			}
		}
		if get := p.HTTPGet; get != nil {
			if get.Path == "" {
				get.Path = "/"
			}
			if get.Scheme == "" {
				get.Scheme = corev1.URISchemeHTTP
			}
		}
	}
}

func volumeDefaults(v *corev1.Volume) {
	const mode = int32(0o644)
	switch {
	case v.ConfigMap != nil:
		def(&v.ConfigMap.DefaultMode, mode)
	case v.Secret != nil:
		def(&v.Secret.DefaultMode, mode)
	case v.Projected != nil:
		def(&v.Projected.DefaultMode, mode)
		for _, source := range v.Projected.Sources {
			if t := source.ServiceAccountToken; t != nil {
				def(&t.ExpirationSeconds, int64(3600))
			}
		}
	case v.HostPath != nil:
		def(&v.HostPath.Type, corev1.HostPathUnset)
	}
}
