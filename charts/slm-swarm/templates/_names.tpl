{{/* Names, labels and images. */}}

{{- define "slm-swarm.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- (contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name)) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What belongs to the cluster carries the namespace too: several releases may be there. */}}
{{- define "slm-swarm.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "slm-swarm.fullname" .) -}}
{{- end -}}

{{/* Components with a Deployment of the chart's, as JSON. */}}
{{- define "slm-swarm.components" -}}
{{- .Values.egress.enabled | ternary (list "operator" "router" "egress") (list "operator" "router") | toJson -}}
{{- end -}}

{{- define "slm-swarm.selector" -}}
app.kubernetes.io/name: {{ .component | printf "slm-%s" }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{- define "slm-swarm.labels" -}}
{{ include "slm-swarm.selector" . }}
app.kubernetes.io/part-of: slm-swarm
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* REGISTRY/REPOSITORY:TAG, or @DIGEST. */}}
{{- define "slm-swarm.image" -}}
{{- $values := .root.Values.image -}}
{{- with $values.registry }}{{ . }}/{{ end -}}
{{- .repository -}}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ $values.tag | default .root.Chart.AppVersion }}{{ end -}}
{{- end -}}

{{/* Head of a monitor of Prometheus. */}}
{{- define "slm-swarm.monitor" -}}
metadata:
  name: {{ include "slm-swarm.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "slm-swarm.labels" . | nindent 4 }}
    {{- with .root.Values.monitoring.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
