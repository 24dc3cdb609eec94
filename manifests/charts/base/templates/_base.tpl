{{/* base.values are the values in force. */}}
{{- define "base.values" -}}
{{- include "ambit.values" (dict "root" . "section" "base") -}}
{{- end -}}

{{- define "base.labels" -}}
{{ include "ambit.labels" (dict "root" . "name" "istio-base") }}
operator.istio.io/component: Base
{{- end -}}
